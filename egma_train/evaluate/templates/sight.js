const search = document.getElementById("search");
const kind = document.getElementById("kind");
const order = document.getElementById("order");
const list = document.getElementById("cards");
const cards = [...list.children];
const words = cards.map((card) => card.textContent.toLowerCase());

function show() {
  const wanted = search.value.toLowerCase().split(/\s+/);
  let found = 0;
  cards.forEach((card, i) => {
    const fits = wanted.every((one) => words[i].includes(one));
    card.hidden = !(fits && ["all", card.dataset.kind].includes(kind.value));
    found += card.hidden ? 0 : 1;
  });
  document.getElementById("found").textContent = `${found} of ${cards.length}`;
}

function sort() {
  list.append(...(order.value === "best" ? cards : [...cards].reverse()));
}

search.addEventListener("input", show);
kind.addEventListener("change", show);
order.addEventListener("change", sort);
show();
