"use strict";
(() => {
  const FRAME = 224, PAGE = 12, PX_PER_S = 90;
  const get = (id) => document.getElementById(id);
  const index = JSON.parse(get("index").textContent);
  const haystacks = index.map(([id, dataset, split, texts]) =>
    [id, dataset, split || "", ...texts].join("\n").toLowerCase());
  const parts = [];
  let first = 0;
  for (const script of document.querySelectorAll("script.part")) {
    const number = Number(script.dataset.readings);
    parts.push({ script, first, end: first + number, cards: null });
    first += number;
  }

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function drawn(name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function cardOf(number) { // a part is parsed when its first card is shown
    const part = parts.find((one) => number < one.end);
    part.cards ??= JSON.parse(part.script.textContent);
    return part.cards[number - part.first];
  }

  // An image with a map over it, and buttons that choose the map.
  function pictureAndSentences(number, chosen) {
    const card = cardOf(number);
    const overlay = element("img", { alt: "", class: "map" });
    const show = (map) => {
      if (map) overlay.src = "data:image/png;base64," + map;
      overlay.hidden = !map;
    };
    const image = element("img", { alt: "image", src: "data:image/jpeg;base64," + card.image });
    const picture = element("div", { class: "picture" }, image, overlay);
    const list = element("ol", { class: "sentences" });
    const add = (text, seconds, map, sentence) => {
      const told = seconds === null ? "" : ` ${map ? seconds.toFixed(1) + " s" : "no gaze"}`;
      const button = element("button", { type: "button", "aria-pressed": "false" }, text,
        element("span", { class: "seconds" }, told));
      button.addEventListener("click", () => {
        for (const other of list.querySelectorAll("button")) other.setAttribute("aria-pressed", "false");
        button.setAttribute("aria-pressed", "true");
        show(map);
        chosen(picture, sentence);
      });
      list.append(element("li", {}, button));
      return button;
    };
    const whole = add("whole reading", null, card.map, null);
    card.sentences.forEach(([, , seconds, map], i) => add(index[number][3][i], seconds, map, card.sentences[i]));
    whole.setAttribute("aria-pressed", "true");
    show(card.map);
    chosen(picture, null);
    return [picture, list];
  }

  function galleryCard(number) {
    const [id, dataset, split] = index[number];
    const open = element("button", { type: "button", class: "open" }, "Time line");
    open.addEventListener("click", () => showReading(number));
    const title = element("h3", {}, `${id} · ${dataset}${split ? " · " + split : ""} `, open);
    return element("article", { class: "card" }, title, ...pictureAndSentences(number, () => {}));
  }

  // -- one reading ------------------------------------------------------------------------------

  function circles(fixations, sentence) {
    const layer = drawn("svg", { viewBox: `0 0 ${FRAME} ${FRAME}`, class: "fixations" });
    for (const [begin, end, x, y, on] of fixations) {
      if (!sentence || (begin < sentence[1] && end > sentence[0]))
        layer.append(drawn("circle", { cx: x, cy: y, r: 2 + 6 * Math.sqrt(end - begin), class: on ? "" : "off" }));
    }
    return layer;
  }

  function lane(svg, top, label, items, origin) {
    svg.append(drawn("text", { x: 4, y: top + 12 }, label));
    for (const [text, begin, end, off] of items) {
      if (begin === null) continue;
      const x = 70 + (begin - origin) * PX_PER_S, width = Math.max((end - begin) * PX_PER_S, 1);
      const box = drawn("rect", { x, y: top, width, height: 18, class: off ? "off" : "" });
      box.append(drawn("title", {}, `${text} (${begin} to ${end} s)`));
      svg.append(box);
      if (width > 6 * text.length) svg.append(drawn("text", { x: x + 2, y: top + 13 }, text));
    }
  }

  function timeline(number) {
    const card = cardOf(number);
    const times = [...card.words.map((one) => one.slice(1)), ...card.fixations].filter((one) => one[0] !== null);
    if (!times.length) return element("p", {}, "A written report has no times.");
    const origin = Math.floor(Math.min(...times.map((one) => one[0])));
    const last = Math.ceil(Math.max(...times.map((one) => one[1])));
    const svg = drawn("svg", { width: 80 + (last - origin) * PX_PER_S, height: 110, role: "img",
      "aria-label": "Sentences, words and fixations in time" });
    lane(svg, 6, "sentences", card.sentences.map(([begin, end], i) => [index[number][3][i], begin, end]), origin);
    lane(svg, 32, "words", card.words, origin);
    lane(svg, 58, "fixations", card.fixations.map(([begin, end, x, y, on]) =>
      [on ? `at ${x}, ${y}` : "off the image", begin, end, !on]), origin);
    for (let s = origin; s <= last; s++)
      svg.append(drawn("text", { x: 70 + (s - origin) * PX_PER_S, y: 100 }, `${s} s`));
    return svg;
  }

  function showReading(number) {
    const [id, dataset] = index[number];
    get("reading-title").textContent = `${dataset} ${id}`;
    get("detail").replaceChildren(...pictureAndSentences(number, (picture, sentence) => {
      picture.querySelector("svg")?.remove();
      picture.append(circles(cardOf(number).fixations, sentence));
    }));
    get("timeline").replaceChildren(timeline(number));
    get("reading").showModal();
  }

  // -- search, and loading as one scrolls ---------------------------------------------------------

  let found = [], shown = 0;
  const watcher = new IntersectionObserver(
    (entries) => { if (entries.some((one) => one.isIntersecting)) more(); }, { rootMargin: "400px" });
  function more() {
    const next = found.slice(shown, shown + PAGE);
    get("cards").append(...next.map(galleryCard));
    shown += next.length;
    get("more").hidden = shown >= found.length;
    watcher.unobserve(get("more")); // so that it tells again if the button is still in sight
    watcher.observe(get("more"));
  }
  function search() {
    const wanted = get("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    found = [...index.keys()].filter((i) => wanted.every((one) => haystacks[i].includes(one)));
    shown = 0;
    get("found").textContent = `${found.length} of ${index.length} readings`;
    get("cards").replaceChildren();
    more();
  }
  let waiting;
  get("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 150); });
  get("more").addEventListener("click", more);
  get("found").textContent = `${index.length} readings`;
  found = [...index.keys()];
  watcher.observe(get("more"));
})();
