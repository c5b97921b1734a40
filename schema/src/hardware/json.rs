//! A JSON value that knows where it stands, for reading what programs of other people print.

use serde_json::Value;

use super::parse::HardwareError;

/// Longest text that is kept, in characters.
const TEXT: usize = 256;

/// A value, or its absence, with its path.
pub(super) struct Node<'a> {
    value: Option<&'a Value>,
    path: String,
}

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self { value: Some(value), path: String::new() }
    }

    /// The path of a key below.
    pub(super) fn field(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value below `key`; null and absence are the same.
    pub(super) fn get(&self, key: &str) -> Self {
        let value = self.value.and_then(|v| v.get(key)).filter(|v| !v.is_null());
        Self { value, path: self.field(key) }
    }

    pub(super) fn required(&self, key: &str, rule: &'static str) -> Result<Self, HardwareError> {
        let node = self.get(key);
        if node.value.is_none() {
            return Err(HardwareError::Missing { field: node.path, rule });
        }
        Ok(node)
    }

    pub(super) fn wrong(&self, rule: impl Into<String>) -> HardwareError {
        let value = self.value.map_or_else(String::new, Value::to_string);
        HardwareError::Wrong { field: self.path.clone(), value: value.chars().take(80).collect(), rule: rule.into() }
    }

    /// Its entries; none when absent.
    pub(super) fn list(&self, max: usize) -> Result<Vec<Self>, HardwareError> {
        match self.value {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) if items.len() > max => {
                Err(HardwareError::TooMany { field: self.path.clone(), count: items.len(), max })
            }
            Some(Value::Array(items)) => {
                let entry = |(i, value)| Self { value: Some(value), path: format!("{}[{i}]", self.path) };
                Ok(items.iter().enumerate().map(entry).collect())
            }
            Some(_) => Err(self.wrong("a list")),
        }
    }

    /// A text, trimmed, without control characters, cut at 256 characters. A number is its own text; all else is empty.
    pub(super) fn text(&self) -> String {
        match self.value {
            Some(Value::String(text)) => text.trim().chars().filter(|c| !c.is_control()).take(TEXT).collect(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        }
    }

    /// A text of up to 64 KiB, as it is; all else is empty.
    pub(super) fn long_text(&self) -> String {
        self.value.and_then(Value::as_str).filter(|t| t.len() <= 64 * 1024).unwrap_or_default().to_owned()
    }

    pub(super) fn text_or(&self, otherwise: &str) -> String {
        if self.value.is_none() { otherwise.to_owned() } else { self.text() }
    }

    /// Whether it is `true`.
    pub(super) fn flag(&self) -> bool {
        self.value.and_then(Value::as_bool).unwrap_or(false)
    }

    /// A whole number from 0 to `max`; 0 when absent.
    pub(super) fn whole(&self, max: u64) -> Result<u64, HardwareError> {
        let Some(value) = self.value else { return Ok(0) };
        value.as_u64().filter(|n| *n <= max).ok_or_else(|| self.wrong(format!("a whole number from 0 to {max}")))
    }

    /// As [`Self::whole`], in 32 bits.
    pub(super) fn number(&self, max: u64) -> Result<u32, HardwareError> {
        let number = self.whole(max.min(u64::from(u32::MAX)))?;
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// A NUMA node's index. The kernel says -1 where there is none: that is node 0.
    pub(super) fn node_index(&self) -> u32 {
        self.value.and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).filter(|n| *n < 65_536).unwrap_or(0)
    }
}
