// Dark or light, and what a browser keeps for the page. It is served as the head of page.js and runs before anything is painted.
"use strict";

window.tidegateTheme = (() => {
  const THEME = "tidegate-theme";
  const root = document.documentElement;
  root.classList.add("js");

  // Storage may be forbidden; then the theme follows the system and the token lives as long as the page.
  const kept = {
    memory: new Map(),
    read(store, key) { try { return window[store].getItem(key) ?? this.memory.get(key) ?? null; } catch { return this.memory.get(key) ?? null; } },
    write(store, key, value) {
      if (value === null) this.memory.delete(key); else this.memory.set(key, value);
      try { if (value === null) window[store].removeItem(key); else window[store].setItem(key, value); } catch { /* it is in memory */ }
    },
  };

  const dark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const theme = kept.read("localStorage", THEME);
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;

  function nameTheme() {
    const button = document.querySelector("#theme");
    if (button) button.setAttribute("aria-label", dark() ? "Light theme" : "Dark theme");
  }

  function switchTheme() {
    root.dataset.theme = dark() ? "light" : "dark";
    kept.write("localStorage", THEME, root.dataset.theme);
    nameTheme();
  }

  document.addEventListener("click", (event) => { if (event.target.closest?.("#theme")) switchTheme(); });

  return { kept, nameTheme };
})();
