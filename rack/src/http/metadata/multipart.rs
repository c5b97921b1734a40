//! Forms as clients post them: multipart/form-data (RFC 7578) and application/x-www-form-urlencoded, from bytes that are all here.

use super::oauth::percent_decode;

/// Parts read from one form at most.
const PARTS: usize = 64;
/// A part's header block may take this many bytes.
const PART_HEAD: usize = 8 * 1024;

/// One field or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    /// `None` for a plain field.
    pub filename: Option<String>,
    pub content: Vec<u8>,
}

/// A form's parts in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    pub parts: Vec<Part>,
}

/// A body that is no form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    #[error(
        "Content-Type \"{0}\" is not a form; send multipart/form-data with a boundary or application/x-www-form-urlencoded"
    )]
    ContentType(String),
    #[error("multipart boundary \"{0}\" must have 1 to 70 characters (RFC 2046 section 5.1.1)")]
    Boundary(String),
    #[error("multipart body does not contain its boundary \"--{0}\"; compare it with the Content-Type header")]
    NoBoundary(String),
    #[error("multipart part {0} has no end; the body was cut off: send it again")]
    CutOff(usize),
    #[error(
        "multipart part {0} has no readable header with Content-Disposition: form-data; name=\"…\" of at most {PART_HEAD} bytes"
    )]
    PartHead(usize),
    #[error("the form has more than {PARTS} parts; send one script's files per signal")]
    TooManyParts,
    #[error("form field {0} holds a broken %XX escape or bytes that are not UTF-8")]
    Escape(usize),
}

impl Form {
    /// Reads a body by its content type.
    ///
    /// # Errors
    /// When the type is no form's, or the body does not hold to it.
    pub fn parse(content_type: Option<&str>, body: &[u8]) -> Result<Self, FormError> {
        let whole = content_type.unwrap_or("").trim();
        let (kind, parameters) = whole.split_once(';').unwrap_or((whole, ""));
        match kind.trim().to_ascii_lowercase().as_str() {
            "multipart/form-data" => multipart(boundary(parameters)?, body),
            "application/x-www-form-urlencoded" => urlencoded(body),
            // netboot_off comes with an empty body and no type.
            _ if body.is_empty() => Ok(Self::default()),
            _ => Err(FormError::ContentType(whole.chars().take(100).collect())),
        }
    }

    /// The text of a plain field or file of that name, if it is UTF-8. The last one wins.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let part = self.parts.iter().rev().find(|p| p.name == name)?;
        std::str::from_utf8(&part.content).ok()
    }
}

fn boundary(parameters: &str) -> Result<&str, FormError> {
    let value = parameters.split(';').find_map(|p| {
        let (key, value) = p.split_once('=')?;
        key.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
    });
    let value = value.unwrap_or("");
    if value.is_empty() || value.len() > 70 {
        return Err(FormError::Boundary(value.chars().take(80).collect()));
    }
    Ok(value)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

fn multipart(boundary: &str, body: &[u8]) -> Result<Form, FormError> {
    let (first, next) = (format!("--{boundary}"), format!("\r\n--{boundary}"));
    let start = find(body, first.as_bytes()).ok_or_else(|| FormError::NoBoundary(boundary.into()))?;
    let mut rest = body.get(start + first.len()..).unwrap_or_default();
    let mut form = Form::default();
    // `rest` stands right behind a boundary: "--" ends the form, a line end begins a part.
    while !rest.starts_with(b"--") {
        let number = form.parts.len() + 1;
        if number > PARTS {
            return Err(FormError::TooManyParts);
        }
        let line = find(rest, b"\r\n").ok_or(FormError::CutOff(number))?;
        let part = rest.get(line + 2..).unwrap_or_default();
        let blank = find(part.get(..part.len().min(PART_HEAD)).unwrap_or_default(), b"\r\n\r\n");
        let blank = blank.ok_or(FormError::PartHead(number))?;
        let head = std::str::from_utf8(part.get(..blank).unwrap_or_default()).ok();
        let (name, filename) = head.and_then(disposition).ok_or(FormError::PartHead(number))?;
        let content = part.get(blank + 4..).unwrap_or_default();
        // An empty part's content may begin with the boundary itself.
        let end = if content.starts_with(&next.as_bytes()[2..]) { None } else { Some(find(content, next.as_bytes())) };
        let (content, after) = match end {
            None => (&[][..], next.len() - 2),
            Some(Some(end)) => (content.get(..end).unwrap_or_default(), end + next.len()),
            Some(None) => return Err(FormError::CutOff(number)),
        };
        form.parts.push(Part { name, filename, content: content.to_vec() });
        rest = part.get(blank + 4 + after..).unwrap_or_default();
    }
    Ok(form)
}

/// Name and file name of a part's header block.
fn disposition(head: &str) -> Option<(String, Option<String>)> {
    let line = head.lines().find_map(|l| {
        let (key, value) = l.split_once(':')?;
        key.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    Some((parameter(line, "name")?, parameter(line, "filename")))
}

/// A quoted or bare parameter of a header line; `\"` and `\\` are undone.
fn parameter(line: &str, name: &str) -> Option<String> {
    let mut rest = line;
    loop {
        let (_, tail) = rest.split_once(';')?;
        let (key, value) = tail.split_once('=')?;
        let value = value.trim_start();
        let (text, after) = match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = value.find(';').unwrap_or(value.len());
                (value.get(..end)?.trim().to_owned(), value.get(end..)?)
            }
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(text);
        }
        rest = after;
    }
}

fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((text, quoted.get(i + 1..)?)),
            '\\' => text.push(chars.next()?.1),
            c => text.push(c),
        }
    }
    None
}

fn urlencoded(body: &[u8]) -> Result<Form, FormError> {
    let mut form = Form::default();
    for (i, pair) in body.split(|b| *b == b'&').filter(|p| !p.is_empty()).enumerate() {
        if i >= PARTS {
            return Err(FormError::TooManyParts);
        }
        let text = std::str::from_utf8(pair).map_err(|_| FormError::Escape(i + 1))?.replace('+', " ");
        let (key, value) = text.split_once('=').unwrap_or((&text, ""));
        let decode = |t| percent_decode(t).ok_or(FormError::Escape(i + 1));
        form.parts.push(Part { name: decode(key)?, filename: None, content: decode(value.trim_end())?.into_bytes() });
    }
    Ok(form)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(parts: &[(String, Option<String>, Vec<u8>)], boundary: &str) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, filename, content) in parts {
            let file = filename.as_ref().map(|f| format!("; filename=\"{f}\"")).unwrap_or_default();
            body.extend(
                format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes(),
            );
            body.extend(content);
            body.extend(b"\r\n");
        }
        body.extend(format!("--{boundary}--\r\n").bytes());
        body
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(
            parts in proptest::collection::vec(("[a-z._-]{1,20}", proptest::option::of("[a-z ;=.]{1,20}"), proptest::collection::vec(any::<u8>(), 0..200)), 1..6),
        ) {
            let body = encode(&parts, "x-b0undary-77");
            let form = Form::parse(Some("multipart/form-data; boundary=x-b0undary-77"), &body).unwrap();
            let back: Vec<_> = form.parts.into_iter().map(|p| (p.name, p.filename, p.content)).collect();
            prop_assert_eq!(back, parts);
        }

        #[test]
        fn arbitrary_and_cut_bodies_never_panic(mut body in proptest::collection::vec(any::<u8>(), 0..400), cut in 0_usize..400) {
            let types = ["multipart/form-data; boundary=b", "application/x-www-form-urlencoded", "text/html"];
            let whole = encode(&[("op".into(), None, b"signal".to_vec()), ("f".into(), Some("f".into()), body.clone())], "b");
            for t in types {
                Form::parse(Some(t), &body).ok();
                Form::parse(Some(t), &whole[..cut.min(whole.len())]).ok();
            }
            body.splice(0..0, *b"--b\r\n");
            Form::parse(Some(types[0]), &body).ok();
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let error = |t: &str, b: &[u8]| Form::parse(Some(t), b).unwrap_err().to_string();
        assert!(error("text/xml", b"<x/>").contains("text/xml"));
        assert!(error("multipart/form-data", b"x").contains("1 to 70"));
        assert!(error("multipart/form-data; boundary=q", b"x").contains("--q"));
        assert!(
            error("multipart/form-data; boundary=q", b"--q\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nxx")
                .contains("cut off")
        );
        assert!(error("application/x-www-form-urlencoded", b"a=%f").contains("field 1"));
    }

    #[test]
    fn wgets_form_is_read() {
        let form =
            Form::parse(Some("application/x-www-form-urlencoded"), b"op=signal&status=OK&error=all+done%21\n").unwrap();
        assert_eq!((form.text("op"), form.text("error")), (Some("signal"), Some("all done!")));
    }
}
