//! The machines' logs on disk, for the region and for a rack without one: a folder for each machine, files of RFC 5424 lines, bounded
//! in bytes for each machine and in all. Nothing is synced: what a power cut takes of a log is not worth a sync a batch.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use schema::{
    logs::{KeptLine, LogLine},
    time::Timestamp,
};

/// A machine's log has that many files at least, so that one of them can go.
const FILES: u64 = 8;
/// Files that are held open.
const OPEN: usize = 128;

/// What may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one machine.
    pub machine: u64,
    /// Bytes of all.
    pub total: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { machine: 8 << 20, total: 2 << 30 }
    }
}

/// The writer. There is one for a directory.
#[derive(Debug)]
pub struct Logbook {
    dir: PathBuf,
    limits: Limits,
    shelves: BTreeMap<String, Shelf>,
    open: HashMap<String, File>,
    total: u64,
}

/// One machine's files by number, the oldest first, with their lengths.
#[derive(Debug, Default)]
struct Shelf(VecDeque<(u64, u64)>);

impl Shelf {
    fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, len)| len).sum()
    }
}

/// A place in a machine's log: what comes after it has not been read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    file: u64,
    offset: u64,
}

impl Logbook {
    /// The logs in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(dir: PathBuf, limits: Limits) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let mut book = Self { limits, shelves: BTreeMap::new(), open: HashMap::new(), total: 0, dir };
        for entry in fs::read_dir(&book.dir)? {
            let entry = entry?;
            let shelf = Shelf(files(&entry.path()).into());
            book.total += shelf.bytes();
            book.shelves.insert(entry.file_name().to_string_lossy().into_owned(), shelf);
        }
        Ok(book)
    }

    /// Appends lines, each to its machine's log; then drops the oldest of what exceeds the limits.
    ///
    /// # Errors
    /// When the disk refuses. What was written before stays.
    pub fn append(&mut self, lines: &[LogLine]) -> io::Result<()> {
        // A machine's attempts share its log, in the order of their lines.
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        for of_one in lines.chunk_by(|a, b| a.source == b.source) {
            let Some(first) = of_one.first() else { continue };
            let text = texts.entry(first.source.name()).or_default();
            for line in of_one {
                line.write(text);
                text.push('\n');
            }
        }
        texts.into_iter().try_for_each(|(name, text)| self.write(&name, text.as_bytes()))
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let dir = self.dir.join(name);
        let shelf = self.shelves.entry(name.to_owned()).or_default();
        let full = shelf.0.back().is_none_or(|(_, len)| *len >= self.limits.machine / FILES);
        if full {
            fs::create_dir_all(&dir)?;
            let next = shelf.0.back().map_or(1, |(number, _)| number + 1);
            shelf.0.push_back((next, 0));
            self.open.remove(name);
        }
        let Some((number, len)) = shelf.0.back_mut() else { return Ok(()) };
        if self.open.len() >= OPEN && !self.open.contains_key(name) {
            self.open.clear();
        }
        let file = match self.open.entry(name.to_owned()) {
            std::collections::hash_map::Entry::Occupied(held) => held.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(File::options().create(true).append(true).open(file_name(&dir, *number))?)
            }
        };
        file.write_all(bytes)?;
        *len += bytes.len() as u64;
        self.total += bytes.len() as u64;
        self.shorten(name);
        while self.total > self.limits.total
            && let Some(longest) = self.shelves.iter().max_by_key(|(_, s)| s.bytes()).map(|(name, _)| name.clone())
        {
            self.drop_oldest(&longest);
        }
        Ok(())
    }

    fn shorten(&mut self, name: &str) {
        while self.shelves.get(name).is_some_and(|s| s.bytes() > self.limits.machine && s.0.len() > 1) {
            self.drop_oldest(name);
        }
    }

    fn drop_oldest(&mut self, name: &str) {
        let Some(shelf) = self.shelves.get_mut(name) else { return };
        if let Some((number, len)) = shelf.0.pop_front() {
            fs::remove_file(file_name(&self.dir.join(name), number)).ok(); // Gone already: that is what is wanted.
            self.total = self.total.saturating_sub(len);
        }
        if shelf.0.is_empty() {
            self.open.remove(name);
            self.shelves.remove(name);
            fs::remove_dir(self.dir.join(name)).ok(); // As above.
        }
    }

    /// Drops a machine's log.
    pub fn forget(&mut self, name: &str) {
        while self.shelves.contains_key(name) {
            self.drop_oldest(name);
        }
    }
}

fn file_name(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.log"))
}

/// The files of one machine with their lengths, the oldest first.
fn files(dir: &Path) -> Vec<(u64, u64)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let numbered = entries.filter_map(|entry| {
        let number = entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok()?;
        Some((number, entry.metadata().ok()?.len()))
    });
    let mut files: Vec<_> = numbered.collect();
    files.sort_unstable();
    files
}

/// Which lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    pub attempt: Option<u32>,
    pub since: Option<Timestamp>,
    /// Only what comes after.
    pub after: Place,
    /// Only the last ones.
    pub last: Option<usize>,
}

/// Reads a machine's log: the lines that are wanted, and the place behind all that was read.
///
/// # Errors
/// When the disk refuses. A log that is not there is empty.
pub fn read(dir: &Path, name: &str, wanted: Wanted) -> io::Result<(Vec<KeptLine>, Place)> {
    let dir = dir.join(name);
    let (mut lines, mut place) = (VecDeque::new(), wanted.after);
    for (number, _) in files(&dir).into_iter().filter(|(number, _)| *number >= wanted.after.file) {
        let offset = if number == wanted.after.file { wanted.after.offset } else { 0 };
        let mut file = match File::open(file_name(&dir, number)) {
            Ok(file) => file,
            // Dropped since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(offset))?;
        place = Place { file: number, offset: offset + read_file(file, &wanted, &mut lines)? };
    }
    Ok((lines.into(), place))
}

/// Reads whole lines to the end of the file; how many bytes they were.
fn read_file(file: impl Read, wanted: &Wanted, lines: &mut VecDeque<KeptLine>) -> io::Result<u64> {
    let (mut reader, mut bytes, mut line) = (BufReader::with_capacity(1 << 16, file), 0, Vec::new());
    loop {
        line.clear();
        let len = reader.read_until(b'\n', &mut line)?;
        // The end, or a line whose other half is being written.
        if line.pop_if(|last| *last == b'\n').is_none() {
            return Ok(bytes);
        }
        bytes += len as u64;
        let Some(kept) = KeptLine::parse(&String::from_utf8_lossy(&line)) else { continue };
        let fits =
            wanted.attempt.is_none_or(|a| kept.attempt == Some(a)) && wanted.since.is_none_or(|s| kept.time >= s);
        if fits {
            lines.push_back(kept);
            if wanted.last.is_some_and(|last| lines.len() > last) {
                lines.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use schema::{id::AttemptId, logs::LogSource};

    use super::*;

    fn line(machine: &str, attempt: u32, n: i64) -> LogLine {
        let source = LogSource::Machine { machine: machine.parse().unwrap(), attempt: AttemptId(attempt) };
        LogLine::heard(
            format!("<13>test: line {n}").as_bytes(),
            source,
            "fox",
            Timestamp::from_seconds(1_800_000_000 + n),
        )
    }

    fn texts(lines: &[KeptLine]) -> Vec<&str> {
        lines.iter().map(|l| l.text.as_str()).collect()
    }

    #[test]
    fn lines_are_read_back_by_attempt_time_count_and_place() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = Logbook::open(dir.path().into(), Limits::default()).unwrap();
        book.append(&[line("abc234", 1, 1), line("def567", 1, 2), line("abc234", 2, 3)]).unwrap();
        let all = |wanted| read(dir.path(), "abc234", wanted).unwrap();
        let (lines, place) = all(Wanted::default());
        assert_eq!(texts(&lines), ["line 1", "line 3"]);
        let (lines, _) = all(Wanted { attempt: Some(2), ..Wanted::default() });
        assert_eq!(texts(&lines), ["line 3"]);
        let (lines, _) = all(Wanted { since: Some(Timestamp::from_seconds(1_800_000_002)), ..Wanted::default() });
        assert_eq!(texts(&lines), ["line 3"]);
        drop(book);
        // The next run goes on in the same file.
        let mut book = Logbook::open(dir.path().into(), Limits::default()).unwrap();
        book.append(&[line("abc234", 2, 4), line("abc234", 2, 5)]).unwrap();
        let (lines, after) = all(Wanted { after: place, ..Wanted::default() });
        assert_eq!((texts(&lines), all(Wanted { after, ..Wanted::default() }).0.len()), (vec!["line 4", "line 5"], 0));
        assert_eq!(texts(&all(Wanted { last: Some(1), ..Wanted::default() }).0), ["line 5"]);
        assert_eq!(read(dir.path(), "nobody", Wanted::default()).unwrap(), (vec![], Place::default()));
        book.forget("abc234");
        assert!(all(Wanted::default()).0.is_empty() && !dir.path().join("abc234").exists());
    }

    #[test]
    fn a_log_stays_within_its_bound_and_all_within_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { machine: 8_000, total: 12_000 };
        let mut book = Logbook::open(dir.path().into(), limits).unwrap();
        for n in 0..400 {
            book.append(&[line("abc234", 1, n), line("def567", 1, n)]).unwrap();
            assert!(book.total <= limits.total, "{}", book.total);
        }
        let (lines, _) = read(dir.path(), "abc234", Wanted::default()).unwrap();
        assert_eq!(lines.last().unwrap().text, "line 399", "the newest stay");
        assert!(lines.len() > 20 && lines.len() < 200, "{}", lines.len());
        let on_disk: u64 =
            ["abc234", "def567"].iter().flat_map(|m| files(&dir.path().join(m))).map(|(_, len)| len).sum();
        assert_eq!(on_disk, book.total);
        assert_eq!(Logbook::open(dir.path().into(), limits).unwrap().total, on_disk);
    }
}
