// The texts of the page in English, German and Chinese.

const TEXTS = {
  en: {
    label: "Search for a person or a product",
    example: "woman in red coat   camera:gate-3   price:<80",
    picture: "Picture",
    search: "Search",
    save: "Save search",
    saved: "Saved searches",
    group: "Group by",
    probability: "Least probability",
    rejected: "Show the best picture that was not probable enough",
    ungrouped: "nothing",
    more: "Show more",
    close: "Close",
    remove: "Remove",
    crop: "Drag a rectangle around what you search for, or search for all of it.",
    similar: "Similar pictures",
    timeline: "Timeline by camera",
    key: "This service needs a key",
    use: "Use",
    right: "Right: show more like this",
    wrong: "Wrong: show less like this",
    judged: "Judged",
    matches: "Matches",
    language: "Language",
    gallery: "Gallery",
    searching: "Searching …",
    none: "No picture matches these conditions.",
    describe: "Describe what to search for, such as: woman in red coat",
    empty: "The gallery is empty. Add pictures with: finegrain index PLAN FOLDER",
    gone: "picture not available",
    alert: "Tell me of new pictures",
    alarmList: "New matches",
    alarms: (count) => `New matches of saved searches: ${count}`,
    fires: (text) => `The service tells this page of new pictures that match “${text}”, with about one false alarm a day.`,
    quiet: (text) => `“${text}” does not fire any more.`,
    added: "added",
    shown: (count) => `The best ${count} pictures`,
    holds: (count, names) => `${count} pictures. Columns: ${names}`,
    failed: (status) => `The service answered ${status}.`,
    match: (rank, score) => `Match ${rank}, score ${score}`,
  },
  de: {
    label: "Nach einer Person oder einem Produkt suchen",
    example: "woman in red coat   camera:gate-3   price:<80",
    picture: "Bild",
    search: "Suchen",
    save: "Suche speichern",
    saved: "Gespeicherte Suchen",
    group: "Gruppieren nach",
    probability: "Mindestwahrscheinlichkeit",
    rejected: "Das beste zu unwahrscheinliche Bild zeigen",
    ungrouped: "nichts",
    more: "Mehr anzeigen",
    close: "Schließen",
    remove: "Entfernen",
    crop: "Ziehen Sie ein Rechteck um das Gesuchte, oder suchen Sie mit dem ganzen Bild.",
    similar: "Ähnliche Bilder",
    timeline: "Zeitachse je Kamera",
    key: "Dieser Dienst verlangt einen Schlüssel",
    use: "Verwenden",
    right: "Richtig: mehr davon zeigen",
    wrong: "Falsch: weniger davon zeigen",
    judged: "Bewertet",
    matches: "Treffer",
    language: "Sprache",
    gallery: "Galerie",
    searching: "Suche läuft …",
    none: "Kein Bild erfüllt diese Bedingungen.",
    describe: "Beschreiben Sie das Gesuchte, zum Beispiel: woman in red coat",
    empty: "Die Galerie ist leer. Bilder hinzufügen: finegrain index PLAN ORDNER",
    gone: "Bild nicht verfügbar",
    alert: "Neue Bilder melden",
    alarmList: "Neue Treffer",
    alarms: (count) => `Neue Treffer gespeicherter Suchen: ${count}`,
    fires: (text) => `Der Dienst meldet neue Bilder zu „${text}“, mit etwa einem Fehlalarm am Tag.`,
    quiet: (text) => `„${text}“ meldet nichts mehr.`,
    added: "hinzugefügt",
    shown: (count) => `Die besten ${count} Bilder`,
    holds: (count, names) => `${count} Bilder. Spalten: ${names}`,
    failed: (status) => `Der Dienst antwortete mit ${status}.`,
    match: (rank, score) => `Treffer ${rank}, Wert ${score}`,
  },
  zh: {
    label: "搜索人物或商品",
    example: "woman in red coat   camera:gate-3   price:<80",
    picture: "图片",
    search: "搜索",
    save: "保存搜索",
    saved: "已保存的搜索",
    group: "分组",
    probability: "最低概率",
    rejected: "显示概率不足的最佳图片",
    ungrouped: "不分组",
    more: "显示更多",
    close: "关闭",
    remove: "移除",
    crop: "拖动框选要搜索的部分，或用整张图片搜索。",
    similar: "相似图片",
    timeline: "各摄像头时间线",
    key: "此服务需要密钥",
    use: "使用",
    right: "正确：显示更多类似结果",
    wrong: "错误：减少类似结果",
    judged: "已评价",
    matches: "搜索结果",
    language: "语言",
    gallery: "图库",
    searching: "正在搜索……",
    none: "没有符合这些条件的图片。",
    describe: "请描述要搜索的内容，例如：woman in red coat",
    empty: "图库为空。添加图片：finegrain index PLAN FOLDER",
    gone: "图片不可用",
    alert: "有新图片时通知我",
    alarmList: "新的匹配",
    alarms: (count) => `已保存搜索的新匹配：${count}`,
    fires: (text) => `服务会通知与“${text}”匹配的新图片，每天约有一次误报。`,
    quiet: (text) => `“${text}”不再通知。`,
    added: "添加时间",
    shown: (count) => `前 ${count} 张图片`,
    holds: (count, names) => `${count} 张图片。列：${names}`,
    failed: (status) => `服务返回状态 ${status}。`,
    match: (rank, score) => `第 ${rank} 个结果，得分 ${score}`,
  },
};

export const LANGUAGES = { en: "English", de: "Deutsch", zh: "中文" };

let language = [localStorage.getItem("language"), ...navigator.languages.map((name) => name.slice(0, 2)), "en"]
  .find((name) => name in TEXTS);

/** A text in the chosen language; some take values. */
export function say(name, ...values) {
  const text = TEXTS[language][name];
  return typeof text === "function" ? text(...values) : text;
}

/** Write the texts of all elements with `data-text`, `data-label` or `data-placeholder`. */
export function translate(root = document) {
  document.documentElement.lang = language;
  for (const element of root.querySelectorAll("[data-text]")) {
    element.textContent = say(element.dataset.text);
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", say(element.dataset.label));
    element.title = say(element.dataset.label);
  }
  for (const element of root.querySelectorAll("[data-placeholder]")) {
    element.placeholder = say(element.dataset.placeholder);
  }
}

export function chooseLanguage(name) {
  language = name;
  localStorage.setItem("language", name);
  translate();
}

export const chosenLanguage = () => language;
