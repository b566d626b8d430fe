"""A WordPiece vocabulary made from the shards' own text, for models that start from nothing."""

import string
from collections.abc import Iterable
from typing import Any

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_tokenizer(texts: Iterable[str], size: int, max_tokens: int) -> Any:
    """Train a lower-case WordPiece tokenizer, as BERT's.

    Two trainings on one text may differ: make it once and keep it with the run.

    Parameters
    ----------
    texts : iterable of str
        Sentences.
    size : int
        Of the vocabulary, at most.
    max_tokens : int
        Of a sentence, kept with the tokenizer.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # Prompts may have letters that no reading has.
    letters = list(string.ascii_lowercase + string.digits + string.punctuation)
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=_SPECIAL, initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    ends = [(token, made.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=made,
        model_max_length=max_tokens,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
