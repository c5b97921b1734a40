//! What a request asks for, whatever its encoding: query, form, multipart (with transfer encodings) or JSON, as names with values.
//! Knows no resource.

use actix_web::web::{Bytes, Query};
use base64::Engine;
use serde_json::Value;

use super::fault::Fault;

/// The longest body of a call that is not an upload, in bytes.
pub const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// Names with values, in order; a name may come more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params {
    fields: Vec<(String, String)>,
    files: Vec<Upload>,
}

/// A part of a multipart body that has a file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    pub name: String,
    pub file_name: String,
    pub content: Bytes,
}

impl Params {
    /// Reads a query string or an urlencoded body.
    #[must_use]
    pub fn form(text: &str) -> Self {
        let fields = Query::<Vec<(String, String)>>::from_query(text).map(Query::into_inner).unwrap_or_default();
        Self { fields, files: Vec::new() }
    }

    /// Reads a body by its content type. No content type and an empty body are no parameters.
    ///
    /// # Errors
    /// 400 with the reason when the body is not what its content type says.
    pub async fn body(content_type: &str, body: Bytes) -> Result<Self, Fault> {
        let kind = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match kind.as_str() {
            _ if body.is_empty() => Ok(Self::default()),
            "multipart/form-data" => Self::multipart(content_type, body).await,
            "application/json" => Self::json(&body),
            "" | "application/x-www-form-urlencoded" => std::str::from_utf8(&body)
                .map(Self::form)
                .map_err(|_| Fault::Bad("The form body is not UTF-8; encode it as UTF-8.".into())),
            other => Err(Fault::Bad(format!(
                "Content type \"{other}\" is not read here; send application/x-www-form-urlencoded, multipart/form-data or application/json."
            ))),
        }
    }

    fn json(body: &[u8]) -> Result<Self, Fault> {
        let value: Value =
            serde_json::from_slice(body).map_err(|e| Fault::Bad(format!("The body is not JSON: {e}.")))?;
        let Value::Object(map) = value else {
            return Err(Fault::Bad("The JSON body is not an object; send {\"name\": value, …}.".into()));
        };
        let mut fields = Vec::new();
        for (name, value) in map {
            match value {
                Value::Null => {}
                Value::Array(items) => fields.extend(items.iter().map(|v| (name.clone(), text_of(v)))),
                other => fields.push((name, text_of(&other))),
            }
        }
        Ok(Self { fields, files: Vec::new() })
    }

    /// Clients of MAAS encode every part by its own `Content-Transfer-Encoding` and end without a line break.
    async fn multipart(content_type: &str, body: Bytes) -> Result<Self, Fault> {
        let broken = |why: String| Fault::Bad(format!("The multipart body cannot be read: {why}."));
        let boundary = boundary(content_type).ok_or_else(|| broken("the content type names no boundary".into()))?;
        let once = futures_util::stream::once(async move { Ok::<_, std::convert::Infallible>(body) });
        let mut parts = multer::Multipart::new(once, boundary);
        let mut params = Self::default();
        while let Some(part) = parts.next_field().await.map_err(|e| broken(e.to_string()))? {
            let name = part.name().ok_or_else(|| broken("a part has no name".into()))?.to_owned();
            let file_name = part.file_name().map(str::to_owned);
            let encoding = part.headers().get("content-transfer-encoding").and_then(|v| v.to_str().ok());
            let encoding = encoding.unwrap_or("binary").trim().to_ascii_lowercase();
            let raw = part.bytes().await.map_err(|e| broken(e.to_string()))?;
            let content = decoded(&encoding, raw).map_err(|why| Fault::field(&name, why))?;
            match file_name {
                Some(file_name) => params.files.push(Upload { name, file_name, content }),
                None => {
                    let text = String::from_utf8(content.to_vec())
                        .map_err(|_| Fault::field(&name, "The value is not UTF-8; send a file part for bytes."))?;
                    params.fields.push((name, text));
                }
            }
        }
        Ok(params)
    }

    /// With the parameters of `other` whose names are not here.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        let known: Vec<String> = self.fields.iter().map(|(n, _)| n.clone()).collect();
        self.fields.extend(other.fields.into_iter().filter(|(n, _)| !known.contains(n)));
        self.files.extend(other.files);
        self
    }

    /// The last value of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The value of that name when it is there and not blank.
    #[must_use]
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).map(str::trim).filter(|v| !v.is_empty())
    }

    /// All values of that name.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }

    /// All values of that name, each split at its commas; blanks left out.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<String> {
        let split = self.all(name).into_iter().flat_map(|v| v.split(','));
        split.map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned).collect()
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// The file of that name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&Upload> {
        self.files.iter().find(|f| f.name == name)
    }

    /// The value of that name.
    ///
    /// # Errors
    /// A field fault when it is missing or blank.
    pub fn required(&self, name: &str) -> Result<&str, Fault> {
        self.filled(name).ok_or_else(|| Fault::field(name, "This field is required."))
    }

    /// The value of that name, parsed. Blank is absent.
    ///
    /// # Errors
    /// A field fault with the parser's words.
    pub fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Option<T>, Fault> {
        let parse = |v: &str| v.parse().map_err(|e| Fault::field(name, format!("\"{v}\": {e}.")));
        self.filled(name).map(parse).transpose()
    }

    /// A truth value, in any of MAAS's spellings.
    ///
    /// # Errors
    /// A field fault for anything else.
    pub fn truth(&self, name: &str) -> Result<Option<bool>, Fault> {
        let Some(text) = self.filled(name) else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Ok(Some(true)),
            "false" | "f" | "no" | "n" | "off" | "0" => Ok(Some(false)),
            _ => Err(Fault::field(name, format!("\"{text}\" is not a truth value; use true or false."))),
        }
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn boundary(content_type: &str) -> Option<String> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"');
        // RFC 2046 section 5.1.1: 1 to 70 characters.
        (name.trim().eq_ignore_ascii_case("boundary") && (1..=70).contains(&value.len())).then(|| value.to_owned())
    })
}

fn decoded(encoding: &str, raw: Bytes) -> Result<Bytes, String> {
    match encoding {
        "7bit" | "8bit" | "binary" | "" => Ok(raw),
        "base64" => {
            let packed: Vec<u8> = raw.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
            let value = base64::engine::general_purpose::STANDARD.decode(packed);
            value.map(Bytes::from).map_err(|e| format!("The part says it is base64, but it is not: {e}."))
        }
        other => Err(format!("Transfer encoding \"{other}\" is not read here; use base64, binary, 8bit or 7bit.")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(content_type: &str, body: &[u8]) -> Result<Params, Fault> {
        let body = Bytes::copy_from_slice(body);
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(Params::body(content_type, body))
    }

    const L: &str = "multipart/form-data; boundary=\"===============842055==\"";

    #[test]
    fn libmaas_multipart_is_decoded_part_by_part() {
        let body = "--===============842055==\r\nContent-Type: text/plain; charset=\"utf-8\"\r\nMIME-Version: 1.0\r\n\
            Content-Transfer-Encoding: base64\r\nContent-Disposition: form-data; name=\"testing_scripts\"\r\n\r\n\
            bm9uZQ==\n\r\n--===============842055==--";
        assert_eq!(read(L, body.as_bytes()).unwrap().get("testing_scripts"), Some("none"));
    }

    #[test]
    fn a_multipart_body_without_parts_is_no_parameters() {
        assert_eq!(read(L, b"--===============842055==--").unwrap(), Params::default());
        assert_eq!(read(L, b"--===============842055==--\r\n").unwrap(), Params::default());
    }

    #[test]
    fn plain_parts_repeat_and_files_stay_bytes() {
        let body = "--b\r\nContent-Disposition: form-data; name=\"mac\"\r\n\r\na\r\n--b\r\nContent-Disposition: form-data; \
            name=\"mac\"\r\n\r\nb,c\r\n--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\n\u{1}\u{2}\r\n--b--";
        let params = read("multipart/form-data; boundary=b", body.as_bytes()).unwrap();
        assert_eq!(params.all("mac"), ["a", "b,c"]);
        assert_eq!(params.list("mac"), ["a", "b", "c"]);
        assert_eq!(&params.file("f").unwrap().content[..], &[1, 2]);
    }

    #[test]
    fn a_wrong_base64_part_names_its_field() {
        let body = "--b\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n***\r\n--b--";
        let fault = read("multipart/form-data; boundary=b", body.as_bytes()).unwrap_err();
        assert!(matches!(&fault, Fault::Fields(f) if f.contains_key("x")), "{fault}");
    }

    #[test]
    fn json_and_forms_mean_the_same() {
        let json = read("application/json", br#"{"a":"1","n":7,"t":true,"l":["x","y"],"z":null}"#).unwrap();
        let form = read("application/x-www-form-urlencoded", b"a=1&l=x&l=y&n=7&t=true").unwrap();
        let sorted = |p: &Params| {
            let mut fields = p.fields.clone();
            fields.sort();
            fields
        };
        assert_eq!(sorted(&json), sorted(&form));
        assert_eq!(form.truth("t").unwrap(), Some(true));
        assert!(form.truth("a").unwrap().unwrap());
        assert!(form.truth("n").is_err());
    }

    proptest! {
        #[test]
        fn no_body_breaks_the_reader(kind in 0..4_usize, body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let kinds = [L, "multipart/form-data; boundary=b", "application/json", "application/x-www-form-urlencoded"];
            read(kinds[kind], &body).ok();
        }

        #[test]
        fn no_cut_or_changed_multipart_breaks_the_reader(cut in 0..400_usize, at in 0..300_usize, byte: u8) {
            let mut body = b"--b\r\nContent-Disposition: form-data; name=\"m\"\r\nContent-Transfer-Encoding: base64\r\n\r\nYWJj\r\n\
                --b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nxyz\r\n--b--".to_vec();
            let at = at % body.len();
            body[at] = byte;
            body.truncate(cut);
            read("multipart/form-data; boundary=b", &body).ok();
        }
    }
}
