//! What a look asks for, checked as a whole: each wrong parameter is named with its value, its bound and what to give instead.

use crate::api::{
    fault::{Fault, Faults},
    params::Params,
};

/// The longest text that is searched for.
const LONGEST: usize = 200;

/// The parameters of one look, and what is wrong with them.
pub(super) struct Asked<'a> {
    params: &'a Params,
    faults: Faults,
}

impl<'a> Asked<'a> {
    /// Reads them; what is not among `known` is a fault.
    pub(super) fn new(params: &'a Params, known: &'static [&'static str]) -> Self {
        let mut asked = Self { params, faults: Faults::default() };
        for (name, value) in params.iter() {
            if !known.contains(&name) {
                let use_one =
                    if known.is_empty() { "none is taken here".into() } else { format!("use {}", known.join(", ")) };
                asked.faults.add(name, format!("\"{}\": there is no such parameter; {use_one}.", short(value)));
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

/// A value as messages repeat it.
pub(super) fn short(text: &str) -> String {
    let cut: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}
