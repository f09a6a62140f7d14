// Before anything is drawn, so that the page does not flash in the other theme.
try {
  const theme = localStorage.getItem("harvest:theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // The browser keeps nothing: as the system has it.
}
