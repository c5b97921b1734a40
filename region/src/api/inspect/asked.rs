//! What a look asks for, checked as a whole: each wrong parameter is named with its value, its bound and what to give instead.

use actors::{inspection::KINDS, shell::Registry};

use crate::{
    api::{
        fault::{Fault, Faults},
        params::Params,
    },
    inspect::Node,
};

/// The longest text that is searched for.
const LONGEST: usize = 200;
/// Before the first page it is empty: who goes from page to page need not know which is the first.
const CURSOR: &str = "cursor";
/// What may be given several times.
const LISTS: [&str; 1] = ["fields"];

/// The parameters of one look, and what is wrong with them.
pub(super) struct Asked<'a> {
    params: &'a Params,
    faults: Faults,
}

impl<'a> Asked<'a> {
    /// Reads them; what is not among `known` is a fault.
    pub(super) fn new(params: &'a Params, known: &[&str]) -> Self {
        let mut asked = Self { params, faults: Faults::default() };
        for (name, value) in params.iter() {
            if !known.contains(&name) {
                let use_one =
                    if known.is_empty() { "none is taken here".into() } else { format!("use {}", known.join(", ")) };
                asked.faults.add(name, format!("\"{}\": there is no such parameter; {use_one}.", short(value)));
            } else if value.trim().is_empty() && name != CURSOR {
                // Most likely a variable that was not set: all would be shown instead of what is meant.
                asked.faults.add(name, format!("\"\" is empty; give a value, or leave {name} away."));
            } else if !LISTS.contains(&name) && again(params, name, value) {
                let message = format!("\"{}\" is not its only value; give {name} once.", short(value));
                asked.faults.add(name, message);
            }
        }
        asked
    }

    /// A whole number between the bounds, both included.
    pub(super) fn number(&mut self, name: &'static str, least: u64, most: u64) -> Option<u64> {
        let text = self.params.filled(name)?;
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let message = format!(
                "\"{}\" is not a whole number from {least} to {most}; give one, as in {name}={}.",
                short(text),
                least.max(1).min(most)
            );
            self.faults.add(name, message);
        }
        number
    }

    /// One of those words.
    pub(super) fn choice(&mut self, name: &'static str, words: &[&'static str]) -> Option<&'static str> {
        let text = self.params.filled(name)?;
        let found = words.iter().find(|word| **word == text).copied();
        if found.is_none() {
            self.faults
                .add(name, format!("\"{}\" is none of its values; use one of {}.", short(text), words.join(", ")));
        }
        found
    }

    /// Some of those words, with commas between.
    pub(super) fn choices(&mut self, name: &'static str, words: &[&'static str]) -> Vec<&'static str> {
        let mut found = Vec::new();
        for text in self.params.list(name) {
            match words.iter().find(|word| **word == text) {
                Some(word) => found.push(*word),
                None => {
                    let message =
                        format!("\"{}\" is none of its values; use some of {}.", short(&text), words.join(", "));
                    self.faults.add(name, message);
                }
            }
        }
        found
    }

    /// A text that is not too long.
    pub(super) fn text(&mut self, name: &'static str) -> Option<&'a str> {
        let text = self.params.filled(name)?;
        if text.len() > LONGEST || text.chars().any(char::is_control) {
            let message = format!(
                "\"{}\" is longer than {LONGEST} bytes or has control characters; give a shorter one.",
                short(text)
            );
            self.faults.add(name, message);
            return None;
        }
        Some(text)
    }

    /// A kind of actors, of whichever node.
    pub(super) fn kind(&mut self, own: &Registry, nodes: &[Node]) -> Option<&'a str> {
        let text = self.text("kind")?;
        let known = is_kind(own, nodes, text);
        if !known {
            let message = format!("\"{}\" is no kind of actors; use one of {}.", short(text), KINDS.join(", "));
            self.faults.add("kind", message);
        }
        known.then_some(text)
    }

    /// A word of which one letter or more is checked by `valid`; `bound` says what it must be.
    pub(super) fn checked<T>(
        &mut self,
        name: &'static str,
        bound: &str,
        valid: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.params.filled(name)?;
        let value = valid(text);
        if value.is_none() {
            self.faults.add(name, format!("\"{}\" {bound}.", short(text)));
        }
        value
    }

    /// As [`Asked::checked`], of a parameter that must be there.
    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        bound: &str,
        valid: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        if self.params.filled(name).is_none() {
            self.faults.add(name, format!("\"\" {bound}."));
        }
        self.checked(name, bound, valid)
    }

    /// A value is wrong beside another one.
    pub(super) fn wrong(&mut self, name: &'static str, message: String) {
        self.faults.add(name, message);
    }

    /// A list as lines of JSON is asked for.
    pub(super) fn lines(&mut self) -> bool {
        self.choice("as", &["json", "ndjson"]) == Some("ndjson")
    }

    /// # Errors
    /// All that is wrong.
    pub(super) fn done(self) -> Result<(), Fault> {
        self.faults.check()
    }
}

/// Whether a name comes several times, and this is its first value: it is said once.
fn again(params: &Params, name: &str, value: &str) -> bool {
    let all = params.all(name);
    all.len() > 1 && all.first().is_some_and(|first| std::ptr::eq(*first, value))
}

/// Whether there are actors of that kind on some node.
pub(super) fn is_kind(own: &Registry, nodes: &[Node], kind: &str) -> bool {
    let shown = || nodes.iter().flat_map(|node| &node.rows).any(|row| row.kind == kind);
    KINDS.contains(&kind) || own.kinds().iter().any(|tally| tally.kind == kind) || shown()
}

/// A value as messages repeat it.
pub(super) fn short(text: &str) -> String {
    let cut: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}
