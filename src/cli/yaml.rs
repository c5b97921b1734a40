//! JSON values as YAML 1.2 block text, for people's eyes and for tools. Writes only.

use std::fmt::Write;

use serde_json::Value;

/// The value as a YAML document without a header. Strings that could be read as something else are quoted as JSON strings, which are YAML.
#[must_use]
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    block(&mut out, value, 0);
    out
}

fn block(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                indent(out, depth);
                entry(out, &format!("{}:", scalar(&Value::String(name.clone()))), value, depth);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                indent(out, depth);
                entry(out, "-", item, depth);
            }
        }
        other => {
            indent(out, depth);
            writeln!(out, "{}", scalar(other)).ok(); // Writing to a String cannot fail.
        }
    }
}

fn entry(out: &mut String, head: &str, value: &Value, depth: usize) {
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested {
        writeln!(out, "{head}").ok();
        block(out, value, depth + 1);
    } else {
        writeln!(out, "{head} {}", scalar(value)).ok();
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if plain(text) => text.clone(),
        Value::Object(_) => "{}".into(),
        Value::Array(_) => "[]".into(),
        other => other.to_string(),
    }
}

/// Whether a string cannot be taken for a number, a truth value, null, or syntax.
fn plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let letters = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    letters
        && text.chars().all(|c| c.is_ascii_alphanumeric() || " -_./".contains(c))
        && !text.ends_with(' ')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_as_blocks_and_ambiguous_strings_are_quoted() {
        let value = json!({
            "name": "fox-12", "off": "off", "mac": "52:54:00:00:00:01", "n": 4, "none": null, "empty": [], "map": {},
            "list": [{"a": 1, "b": [true]}, "x y", ""],
        });
        let expected = "empty: []\nlist:\n  -\n    a: 1\n    b:\n      - true\n  - x y\n  - \"\"\nmac: \"52:54:00:00:00:01\"\n\
                        map: {}\n\"n\": 4\nname: fox-12\nnone: null\n\"off\": \"off\"\n";
        assert_eq!(text(&value), expected);
        assert_eq!(text(&json!("a\nb")), "\"a\\nb\"\n");
    }
}
