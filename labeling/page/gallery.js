// All pictures of a mode as thumbnails, filtered by what was said of them; one that is pressed is shown.

import { address, call, read } from "./api.js";
import { byId, make } from "./panel.js";
import { note } from "./status.js";
import { faultWord, verdictWord } from "./words.js";

const STATES = { open: "open", draft: "not done", done: "done" };

/** Show all pictures; `app.open` is called with the place of the one that is chosen. */
export async function showGallery(app) {
  const { mode, items, saver } = app;
  let [answer, progress] = [];
  try {
    const asked = read(`/api/gallery?mode=${mode}`, saver.annotator);
    [answer, progress] = [await asked, await call("/api/progress")];
  } catch (error) {
    return note(error.message);
  }
  const { subject } = app.session;
  const places = new Map(items.map(({ sample }, place) => [sample, place]));
  const all = answer.items;
  const filters = {
    state: choices("State", STATES, all.map(({ state }) => state)),
    verdict: choices("Verdict", subject.verdicts, all.flatMap(({ said }) => said.map(({ verdict }) => verdict))),
    fault: choices("Fault", Object.fromEntries(subject.kinds.map(({ name, word }) => [name, word])),
      all.flatMap(({ said }) => said.flatMap(({ kinds }) => kinds.map(kindOf)))),
    author: choices("Annotator", null,
      mode === "review" ? all.flatMap(({ said }) => said.map(({ author }) => author)) : []),
    special: choices("Others", { disputed: "disagree", automatic: "labelled automatically" },
      all.flatMap((one) => ["disputed", "automatic"].filter((name) => one[name]))),
  };
  const search = make("input", { type: "search", placeholder: "Search prompts and names", ariaLabel: "Search" });
  const shown = make("output", { className: "small" });
  const grid = byId("gallery-pictures");
  const buttons = all.map((one) => [one, thumbnail(one, mode, places.get(one.sample), subject)]);
  const apply = () => {
    const words = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const fits = ({ sample, prompt, state, said, ...one }) =>
      (!filters.state.value || state === filters.state.value)
      && (!filters.special.value || one[filters.special.value])
      && said.concat(said.length ? [] : [{ kinds: [] }]).some(({ author, verdict, kinds }) =>
        (!filters.author.value || author === filters.author.value)
        && (!filters.verdict.value || verdict === filters.verdict.value)
        && (!filters.fault.value || kinds.map(kindOf).includes(filters.fault.value)))
      && words.every((word) => `${prompt} ${sample}`.toLowerCase().includes(word));
    const found = buttons.filter(([one]) => fits(one));
    grid.replaceChildren(...found.map(([, button]) => button));
    shown.value = `${found.length} of ${all.length}`;
  };
  const controls = [...Object.values(filters).filter(({ hidden }) => !hidden), search];
  for (const control of controls) control.addEventListener("input", apply);
  byId("gallery-filters").replaceChildren(...controls, shown);
  byId("gallery-days").replaceChildren(...days(progress));
  grid.onclick = ({ target }) => {
    const { place } = target.closest("button")?.dataset ?? {};
    if (place === undefined) return;
    byId("gallery").close();
    app.open(Number(place));
  };
  apply();
  byId("gallery").showModal();
  return search.focus();
}

const kindOf = (fault) => fault.split(":")[0];

// A filter by what is there to be found; hidden where there is no choice.
function choices(title, words, found) {
  const values = [...new Set(found.filter(Boolean))];
  const known = words ? Object.keys(words).filter((value) => values.includes(value)) : values.sort();
  const options = known.map((value) => make("option", { value, textContent: words?.[value] ?? value }));
  return make("select", { ariaLabel: title, hidden: !known.length },
    make("option", { value: "", textContent: `${title}: all` }), ...options);
}

function thumbnail({ sample, image_sha256: sha, state, said, disputed }, mode, place, subject) {
  const verdicts = said.map(({ author, verdict, kinds }) => [
    mode === "review" ? `${author}:` : "", verdictWord(subject, verdict),
    kinds.map((kind) => faultWord(subject, kind)).join(", "),
  ].filter(Boolean).join(" "));
  const text = verdicts.join("; ") || STATES[state];
  const number = place === undefined ? "" : `${place + 1} `;
  const image = make("img", {
    loading: "lazy", alt: "", width: 112, height: 112, src: `${address(sample, "/thumbnail", mode)}&sha=${sha}`,
  });
  return make("button", {
    className: `seen ${state}`, data: place === undefined ? {} : { place }, disabled: place === undefined,
    aria: { label: `Picture ${number}${STATES[state]}: ${text}${disputed ? ", disputed" : ""}` }, title: text,
  }, image, make("span", { textContent: `${number}${text}` }));
}

// How many pictures each annotator finished on each day.
function days(progress) {
  return progress.days.map(({ day, name, done }) =>
    make("li", { textContent: `${day}: ${name} ${done}` }));
}
