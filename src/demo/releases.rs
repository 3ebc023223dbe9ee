//! The two releases of the demo: their names, backends and colours.

/// What is deployed over.
pub(super) const OLD: &str = "v1";
/// What is deployed.
pub(super) const NEW: &str = "v2";
/// The old release's backends.
pub(super) const OLD_BACKENDS: [&str; 2] = ["a1", "a2"];
/// The new release's backends.
pub(super) const NEW_BACKENDS: [&str; 2] = ["b1", "b2"];

/// On the page, dark enough for white text.
pub(super) fn web_colour(release: &str) -> &'static str {
    if release == OLD { "#b45309" } else { "#0f766e" }
}

/// In the terminal, the same hues from the sixteen colours that every terminal has: yellow and cyan.
pub(super) fn terminal_colour(release: &str) -> u8 {
    if release == OLD { 33 } else { 36 }
}
