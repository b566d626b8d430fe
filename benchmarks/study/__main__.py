"""Do the missing runs of the study, then write its page and picture; ``make study``."""

from pathlib import Path

import click

from benchmarks.study.arms import Study, planned
from benchmarks.study.report import write_report
from benchmarks.study.runs import do_missing, read_results

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs"


@click.command()
@click.option("--processes", default=2, show_default=True, help="Runs at a time, one thread each.")
@click.option("--report-only", is_flag=True, help="Write the page from the runs that are done.")
def main(processes: int, report_only: bool) -> None:
    """Do the study's missing runs and write docs/study.md; delete results.jsonl to begin anew."""
    runs, results = planned(Study()), HERE / "results.jsonl"
    if not report_only:
        do_missing(runs, results, processes, lambda text: click.echo(text, err=True))
    done = read_results(results)
    write_report([done[run.key] for run in runs if run.key in done], runs, DOCS)
    click.echo(f"wrote {DOCS / 'study.md'}")


if __name__ == "__main__":
    main()
