//! The last lines that this process has logged, in memory, for debug bundles: a journal or a container's log may be out of reach then. Bounded
//! in lines and bytes. What may be logged at all is not decided here.

use std::{
    collections::VecDeque,
    io,
    sync::{Mutex, PoisonError},
};

/// Lines that are kept, the bytes of all of them, and of one.
pub const LINES: usize = 5_000;
const BYTES: usize = 1 << 20;
const LONGEST: usize = 8 * 1024;

/// A process logs to one place, so there is one tail.
static TAIL: Mutex<Tail> = Mutex::new(Tail { lines: VecDeque::new(), bytes: 0 });

struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    fn keep(&mut self, text: &str) {
        for line in text.lines().filter(|line| !line.is_empty()) {
            let line = line.get(..line.floor_char_boundary(LONGEST)).unwrap_or_default().to_owned();
            self.bytes += line.len();
            self.lines.push_back(line);
        }
        while self.lines.len() > LINES || self.bytes > BYTES {
            self.bytes -= self.lines.pop_front().map_or(self.bytes, |line| line.len());
        }
    }

    fn last(&self, most: usize) -> Vec<String> {
        self.lines.iter().skip(self.lines.len().saturating_sub(most)).cloned().collect()
    }
}

/// Keeps a record, as it is written to the log.
pub fn keep(record: &[u8]) {
    TAIL.lock().unwrap_or_else(PoisonError::into_inner).keep(&String::from_utf8_lossy(record));
}

/// The last lines, oldest first; at most that many.
#[must_use]
pub fn last(most: usize) -> Vec<String> {
    TAIL.lock().unwrap_or_else(PoisonError::into_inner).last(most)
}

/// Writes to `log`, and keeps what was written.
#[derive(Debug)]
pub struct Kept<W>(pub W);

impl<W: io::Write> io::Write for Kept<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Kept in any case: a log that nobody can write is when the tail is wanted.
        keep(bytes);
        self.0.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_stay_within_both_bounds() {
        let mut tail = Tail { lines: VecDeque::new(), bytes: 0 };
        (0..LINES + 3).for_each(|n| tail.keep(&format!("line {n}\n")));
        assert_eq!((tail.lines.len(), tail.last(1)), (LINES, vec![format!("line {}", LINES + 2)]));
        (0..200).for_each(|_| tail.keep(&format!("{}\n", "é".repeat(LONGEST))));
        assert!(tail.bytes <= BYTES && tail.lines.len() == BYTES / LONGEST, "{} bytes", tail.bytes);
        assert_eq!(tail.bytes, tail.lines.iter().map(String::len).sum::<usize>());
    }
}
