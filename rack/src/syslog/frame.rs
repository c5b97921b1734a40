//! Lines out of a TCP stream (RFC 6587): counted by octets or ended by a line feed, told apart line by line. Sans-I/O.

/// The longest line that is kept, in bytes; of a longer one the rest is dropped.
pub const LONGEST: usize = 8_192;
/// More digits than any honest count has.
const DIGITS: usize = 7;

/// A stream's lines.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
    /// Bytes of a line that was cut, still to come.
    skip: Skip,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Skip {
    #[default]
    Nothing,
    Bytes(usize),
    ToEnd,
}

impl Frames {
    /// Takes bytes as they came and gives each whole line to `line`, with whether it was cut.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8], bool)) {
        let joined;
        let mut rest = if self.buffer.is_empty() {
            bytes
        } else {
            let mut held = std::mem::take(&mut self.buffer);
            held.extend_from_slice(bytes);
            joined = held;
            &joined
        };
        while let Some(after) = self.next(rest, &mut line) {
            rest = after;
        }
        self.buffer.extend_from_slice(rest);
    }

    /// The stream ended: what is left is a line without its end.
    pub fn end(mut self, mut line: impl FnMut(&[u8], bool)) {
        let rest = std::mem::take(&mut self.buffer);
        if self.skip == Skip::Nothing && !rest.is_empty() {
            let text = counted(&rest).map_or(rest.as_slice(), |(at, _)| rest.get(at..).unwrap_or_default());
            line(text, true);
        }
    }

    /// One step: what is left after it, or `None` when more bytes are needed.
    fn next<'a>(&mut self, rest: &'a [u8], line: &mut impl FnMut(&[u8], bool)) -> Option<&'a [u8]> {
        if rest.is_empty() {
            return None;
        }
        match self.skip {
            Skip::Bytes(n) => {
                let gone = n.min(rest.len());
                self.skip = if gone == n { Skip::Nothing } else { Skip::Bytes(n - gone) };
                return rest.get(gone..);
            }
            Skip::ToEnd => {
                let end = end_of_line(rest);
                self.skip = if end.is_some() { Skip::Nothing } else { Skip::ToEnd };
                return rest.get(end.map_or(rest.len(), |at| at + 1)..);
            }
            Skip::Nothing => {}
        }
        match counted(rest) {
            Some((at, len)) => {
                let text = rest.get(at..).unwrap_or_default();
                let kept = len.min(LONGEST);
                line(text.get(..kept)?, len > kept);
                if len > kept {
                    self.skip = Skip::Bytes(len - kept);
                }
                text.get(kept..)
            }
            // A count whose end has not come yet.
            None if rest.len() <= DIGITS && rest.iter().all(u8::is_ascii_digit) => None,
            None => match end_of_line(rest) {
                Some(at) if at <= LONGEST => {
                    let text = rest.get(..at).unwrap_or_default();
                    if !text.is_empty() {
                        line(text, false);
                    }
                    rest.get(at + 1..)
                }
                Some(_) | None if rest.len() > LONGEST => {
                    line(rest.get(..LONGEST).unwrap_or_default(), true);
                    self.skip = Skip::ToEnd;
                    rest.get(LONGEST..)
                }
                _ => None,
            },
        }
    }
}

/// Some senders end lines with NUL.
fn end_of_line(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| matches!(b, b'\n' | 0))
}

/// `MSG-LEN SP` (section 3.4.1): where the line begins, and its length.
fn counted(bytes: &[u8]) -> Option<(usize, usize)> {
    if !bytes.first().is_some_and(|b| (b'1'..=b'9').contains(b)) {
        return None;
    }
    let digits = bytes.iter().take(DIGITS + 1).take_while(|b| b.is_ascii_digit()).count();
    // A line that begins with a number and no "<" behind it is text.
    if digits > DIGITS || bytes.get(digits) != Some(&b' ') || bytes.get(digits + 1).is_some_and(|b| *b != b'<') {
        return None;
    }
    let len = bytes.get(..digits)?.iter().fold(0, |n, b| n * 10 + usize::from(b - b'0'));
    Some((digits + 1, len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<(String, bool)> {
        let (mut frames, mut out) = (Frames::default(), Vec::new());
        let mut line = |text: &[u8], cut| out.push((String::from_utf8_lossy(text).into_owned(), cut));
        parts.iter().for_each(|part| frames.push(part, &mut line));
        frames.end(&mut line);
        out
    }

    fn whole(texts: &[&str]) -> Vec<(String, bool)> {
        texts.iter().map(|t| ((*t).to_owned(), false)).collect()
    }

    #[test]
    fn both_framings_even_in_turn() {
        assert_eq!(lines(&[b"<13>a\n<13>b\n\n"]), whole(&["<13>a", "<13>b"]));
        assert_eq!(lines(&[b"5 <13>a6 <13>\nb<13>c\n"]), whole(&["<13>a", "<13>\nb", "<13>c"]));
        assert_eq!(lines(&[b"1", b"0 <13>", b"abcdef", b"<1>x\0"]), whole(&["<13>abcdef", "<1>x"]));
        assert_eq!(lines(&[b"12 monkeys\n"]), whole(&["12 monkeys"]));
        assert_eq!(lines(&[b"<13>no end"]), [("<13>no end".to_owned(), true)]);
        assert_eq!(lines(&[b"12345678901234 <13>x\n"]), whole(&["12345678901234 <13>x"]));
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_the_next_is_whole() {
        let long = vec![b'x'; LONGEST + 5_000];
        for first in [[&long[..], b"\n"].concat(), [format!("{} <", long.len() + 1).as_bytes(), &long].concat()] {
            let out = lines(&[&first, b"<13>next\n"]);
            assert_eq!((out.len(), out[0].0.len(), out[0].1), (2, LONGEST, true));
            assert_eq!(out[1], ("<13>next".to_owned(), false));
        }
    }

    proptest! {
        #[test]
        fn where_the_stream_is_broken_does_not_matter(
            texts in prop::collection::vec("<[0-9]{1,3}>[a-z ]{0,30}", 1..8),
            counted in prop::collection::vec(any::<bool>(), 8),
            cut in 1_usize..40,
        ) {
            let mut stream = Vec::new();
            for (text, counted) in texts.iter().zip(counted) {
                let framed = if counted { format!("{} {text}", text.len()) } else { format!("{text}\n") };
                stream.extend(framed.bytes());
            }
            let parts: Vec<&[u8]> = stream.chunks(cut).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            prop_assert_eq!(lines(&parts), whole(&texts));
        }

        #[test]
        fn any_stream_is_lines_and_never_more_than_a_line_is_held(bytes in prop::collection::vec(any::<u8>(), 0..3_000), cut in 1_usize..700) {
            let mut frames = Frames::default();
            for part in bytes.chunks(cut) {
                frames.push(part, |line, _| assert!(line.len() <= LONGEST));
                prop_assert!(frames.buffer.len() <= LONGEST + DIGITS + 1);
            }
        }
    }
}
