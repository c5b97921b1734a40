//! The cache on disk. A body and its rules are two files of one number; the rules are written last and name the body's length, so what stands there
//! after a crash is whole or is thrown away. Nothing is synced: a lost answer is fetched again.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use http_cache_semantics::CachePolicy;
use schema::time::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::index::{Entry, Index};

/// Folders that the files are spread over.
const FOLDERS: u64 = 256;
/// What the cache leaves free on its file system, in bytes.
const SPARE: u64 = 1 << 30;
/// Promised bytes between two looks at the file system.
const LOOK: u64 = 64 << 20;

/// The cache. Cloned freely.
#[derive(Debug, Clone)]
pub(super) struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    /// The operator's bound in bytes.
    limit: u64,
    /// The bound that the file system's free room leaves.
    room: AtomicU64,
    since_look: AtomicU64,
    next: AtomicU64,
    evicted: AtomicU64,
    index: Mutex<Index>,
}

/// The rules' file: all of an entry, and `policy`.
#[derive(Serialize, Deserialize)]
struct Rules<P> {
    url: String,
    len: u64,
    confirmed: Timestamp,
    age: u64,
    fresh_until: Timestamp,
    stale_until: Timestamp,
    varies: bool,
    etag: Option<Box<str>>,
    last_modified: Option<Box<str>>,
    head: Box<str>,
    policy: P,
}

impl Store {
    /// Opens (and makes) the cache in `dir`, holding at most `limit` bytes of bodies. What is there already is found by [`Store::load`].
    /// `draw` makes the names of this run differ from those of earlier ones.
    ///
    /// # Errors
    /// When the folders cannot be made.
    pub(super) fn open(dir: &Path, limit: u64, draw: u32) -> io::Result<Self> {
        for folder in 0..FOLDERS {
            fs::create_dir_all(dir.join(format!("{folder:02x}")))?;
        }
        let inner = Inner {
            dir: dir.into(),
            limit,
            room: AtomicU64::new(limit),
            since_look: AtomicU64::new(LOOK),
            next: AtomicU64::new(u64::from(draw) << 32),
            evicted: AtomicU64::new(0),
            index: Mutex::default(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Takes in what earlier runs left, without reading a body. Files of no use are removed. Long on a slow disk: for a thread of its own.
    pub(super) fn load(&self) {
        let own = self.0.next.load(Ordering::Relaxed) >> 32;
        let mut found = Vec::new();
        for folder in 0..FOLDERS {
            let files = fs::read_dir(self.0.dir.join(format!("{folder:02x}"))).into_iter().flatten().flatten();
            for path in files.map(|file| file.path()) {
                let id = path.file_stem().and_then(|s| u64::from_str_radix(s.to_str()?, 16).ok());
                match (id, path.extension().and_then(|e| e.to_str())) {
                    (Some(id), _) if id >> 32 == own => {}
                    (Some(id), Some("rules")) => found.push(id),
                    (Some(id), Some("body")) if self.path(id, "rules").exists() => {}
                    _ => remove(&path),
                }
            }
        }
        let mut entries: Vec<_> = found.into_iter().filter_map(|id| self.recall(id)).collect();
        entries.sort_unstable_by_key(|entry| entry.confirmed);
        for entry in entries {
            // What was fetched since the start is newer.
            if self.index().find(&entry.url).is_empty() || entry.varies {
                let gone = self.index().insert(Arc::new(entry), None);
                self.forget(&gone);
            } else {
                self.forget(&[Arc::new(entry)]);
            }
        }
        let bound = self.bound();
        let gone = self.index().reserve(0, bound).unwrap_or_default();
        self.evict(&gone);
    }

    fn recall(&self, id: u64) -> Option<Entry> {
        let rules: Option<Rules<serde::de::IgnoredAny>> = self.read(id);
        let whole =
            rules.filter(|r| fs::metadata(self.path(id, "body")).is_ok_and(|m| m.is_file() && m.len() == r.len));
        let Some(rules) = whole else {
            ["rules", "body"].iter().for_each(|kind| remove(&self.path(id, kind)));
            return None;
        };
        let Rules { url, len, confirmed, age, fresh_until, stale_until, varies, etag, last_modified, head, policy: _ } =
            rules;
        let used = AtomicU64::new(0);
        let url = url.into();
        Some(Entry { id, url, len, confirmed, age, fresh_until, stale_until, varies, etag, last_modified, head, used })
    }

    fn read<P: DeserializeOwned>(&self, id: u64) -> Option<Rules<P>> {
        serde_json::from_slice(&fs::read(self.path(id, "rules")).ok()?).ok()
    }

    fn path(&self, id: u64, kind: &str) -> PathBuf {
        self.0.dir.join(format!("{:02x}/{id:016x}.{kind}", id % FOLDERS))
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.0.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answers kept for that address.
    pub(super) fn find(&self, url: &str) -> Found {
        match self.index().find(url) {
            [] => Found::None,
            [one] => Found::One(Arc::clone(one)),
            several => Found::Several(several.to_vec()),
        }
    }

    /// The rules of an entry; `None` when its file has gone.
    pub(super) fn policy(&self, entry: &Entry) -> Option<CachePolicy> {
        self.read(entry.id).map(|rules: Rules<CachePolicy>| rules.policy)
    }

    /// The body of an entry.
    ///
    /// # Errors
    /// When its file has gone: the entry is then forgotten.
    pub(super) fn open_body(&self, entry: &Entry) -> io::Result<File> {
        File::open(self.path(entry.id, "body")).inspect_err(|_| self.drop_entry(entry))
    }

    /// Forgets an entry and removes its files.
    pub(super) fn drop_entry(&self, entry: &Entry) {
        let gone = self.index().remove(entry);
        self.forget(gone.as_slice());
    }

    /// Puts an entry's rules in force that its server confirmed; its body stays.
    ///
    /// # Errors
    /// When the disk refuses; the old ones stay.
    pub(super) fn renew(&self, entry: Entry, policy: &CachePolicy) -> io::Result<Arc<Entry>> {
        self.write_rules(&entry, policy)?;
        let (entry, mut index) = (Arc::new(entry), self.index());
        // The same number, the same files: nothing is to be removed unless it was let go meanwhile.
        if index.remove(&entry).is_some() {
            let gone = index.insert(Arc::clone(&entry), None);
            drop(index);
            self.forget(&gone);
        } else {
            drop(index);
            remove(&self.path(entry.id, "rules"));
        }
        Ok(entry)
    }

    fn write_rules(&self, entry: &Entry, policy: &CachePolicy) -> io::Result<()> {
        let rules = Rules {
            url: entry.url.to_string(),
            len: entry.len,
            confirmed: entry.confirmed,
            age: entry.age,
            fresh_until: entry.fresh_until,
            stale_until: entry.stale_until,
            varies: entry.varies,
            etag: entry.etag.clone(),
            last_modified: entry.last_modified.clone(),
            head: entry.head.clone(),
            policy,
        };
        let part = self.path(entry.id, "new");
        let written = File::create(&part).and_then(|mut file| file.write_all(&serde_json::to_vec(&rules)?));
        written.and_then(|()| fs::rename(&part, self.path(entry.id, "rules"))).inspect_err(|_| remove(&part))
    }

    /// A body that is to come, of `len` bytes if that is known. Its room is promised.
    ///
    /// # Errors
    /// When there is no room for it, or the disk refuses.
    pub(super) fn draft(&self, len: u64) -> io::Result<Draft> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path(id, "part");
        let mut draft = Draft { store: self.clone(), id, path, file: None, promised: 0, written: 0 };
        draft.promise(len)?;
        draft.file = Some(Arc::new(File::options().read(true).write(true).create_new(true).open(&draft.path)?));
        Ok(draft)
    }

    /// Bytes that bodies may take: the operator's bound, or what the file system has without its spare.
    fn bound(&self) -> u64 {
        if self.0.since_look.load(Ordering::Relaxed) >= LOOK {
            self.0.since_look.store(0, Ordering::Relaxed);
            let room = nix::sys::statvfs::statvfs(&self.0.dir).map_or(u64::MAX, |fs| {
                let free = fs.blocks_available().saturating_mul(fs.fragment_size());
                self.index().bytes().saturating_add(free).saturating_sub(SPARE)
            });
            self.0.room.store(room.min(self.0.limit), Ordering::Relaxed);
        }
        self.0.room.load(Ordering::Relaxed)
    }

    fn evict(&self, gone: &[Arc<Entry>]) {
        self.0.evicted.fetch_add(gone.len() as u64, Ordering::Relaxed);
        self.forget(gone);
    }

    fn forget(&self, gone: &[Arc<Entry>]) {
        for entry in gone {
            ["rules", "body"].iter().for_each(|kind| remove(&self.path(entry.id, kind)));
        }
    }

    /// Answers kept, bytes of their bodies, and how many were let go for want of room.
    pub(super) fn census(&self) -> (usize, u64, u64) {
        let index = self.index();
        (index.len(), index.bytes(), self.0.evicted.load(Ordering::Relaxed))
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), "the package proxy cannot remove a file: {error}");
        }
        _ => {}
    }
}

/// What is kept for an address; nearly always one answer or none.
pub(super) enum Found {
    None,
    One(Arc<Entry>),
    Several(Vec<Arc<Entry>>),
}

impl Found {
    pub(super) fn as_slice(&self) -> &[Arc<Entry>] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

/// A body that is coming. Dropped before its end, it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Draft {
    store: Store,
    pub id: u64,
    path: PathBuf,
    file: Option<Arc<File>>,
    promised: u64,
    pub written: u64,
}

impl Draft {
    /// The file that grows, for those who read along.
    pub(super) fn file(&self) -> Option<Arc<File>> {
        self.file.clone()
    }

    fn promise(&mut self, bytes: u64) -> io::Result<()> {
        self.store.0.since_look.fetch_add(bytes, Ordering::Relaxed);
        let bound = self.store.bound();
        let gone = self.store.index().reserve(bytes, bound);
        let gone = gone.map_err(|_| io::Error::other("the cache has no room for it"))?;
        self.promised += bytes;
        self.store.evict(&gone);
        Ok(())
    }

    /// Appends.
    ///
    /// # Errors
    /// When the disk refuses or there is no room for more than was promised.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.written + bytes.len() as u64;
        if end > self.promised {
            self.promise((end - self.promised).max(4 << 20))?;
        }
        let file = self.file.as_ref().ok_or_else(|| io::Error::other("a body without a file"))?;
        file.write_all_at(bytes, self.written)?;
        self.written = end;
        Ok(())
    }

    /// The body is whole: from now on `entry` is served. `instead_of`: the entry that it replaces.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn finish(mut self, entry: Arc<Entry>, policy: &CachePolicy, instead_of: Option<u64>) -> io::Result<()> {
        if entry.len != self.written || entry.id != self.id {
            return Err(io::Error::other("the body is not as long as its head says"));
        }
        fs::rename(&self.path, self.store.path(self.id, "body"))?;
        self.file = None;
        if let Err(error) = self.store.write_rules(&entry, policy) {
            remove(&self.store.path(self.id, "body"));
            return Err(error);
        }
        let gone = self.store.index().insert(entry, instead_of);
        self.store.forget(&gone);
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            remove(&self.path);
        }
        self.store.index().release(self.promised);
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};

    use super::*;
    use crate::proxy::policy::{self, Class};

    const NOW: Timestamp = Timestamp(1_764_000_000_000_000);

    fn keep(store: &Store, url: &str, body: &[u8]) -> Arc<Entry> {
        let request = Request::get(url).body(()).unwrap();
        let answer = Response::builder().header("etag", "\"a\"").body(()).unwrap().into_parts().0;
        let policy = policy::rules(Class::Other, &request, &answer, NOW);
        let mut draft = store.draft(body.len() as u64).unwrap();
        draft.write(body).unwrap();
        let entry = Arc::new(Entry {
            id: draft.id,
            url: url.into(),
            len: body.len() as u64,
            confirmed: NOW,
            age: 0,
            fresh_until: NOW,
            stale_until: NOW,
            varies: false,
            etag: Some("\"a\"".into()),
            last_modified: None,
            head: "etag: \"a\"\r\n".into(),
            used: AtomicU64::new(0),
        });
        draft.finish(Arc::clone(&entry), &policy, None).unwrap();
        entry
    }

    fn files(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().flatten().map(|f| fs::read_dir(f.path()).unwrap().count()).sum()
    }

    #[test]
    fn what_was_whole_is_there_after_a_restart_and_the_rest_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 1 << 20, 1).unwrap();
        let kept = keep(&store, "http://a/1", b"one");
        let cut = keep(&store, "http://a/2", b"two, cut");
        let rules = keep(&store, "http://a/3", b"three");
        keep(&store, "http://a/1", b"one, again");
        // As a crash leaves them: a body in the making, a body cut short, rules that are none, and a file of somebody else's.
        let mut draft = store.draft(10).unwrap();
        draft.write(b"half").unwrap();
        std::mem::forget(draft);
        fs::write(store.path(cut.id, "body"), b"two").unwrap();
        fs::write(store.path(rules.id, "rules"), b"{").unwrap();
        fs::write(dir.path().join("00/what.txt"), b"?").unwrap();
        drop(store);
        let store = Store::open(dir.path(), 1 << 20, 2).unwrap();
        store.load();
        assert_eq!(store.census().0, 1);
        assert_eq!(files(dir.path()), 2);
        let found = store.find("http://a/1");
        let [entry] = found.as_slice() else { panic!("one is kept") };
        assert_ne!(entry.id, kept.id, "the newer one");
        let mut body = String::new();
        io::Read::read_to_string(&mut store.open_body(entry).unwrap(), &mut body).unwrap();
        assert_eq!(body, "one, again");
        assert!(store.policy(entry).is_some());
    }

    #[test]
    fn the_bound_holds_on_disk_and_an_abandoned_body_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 1_000, 1).unwrap();
        for n in 0..20 {
            keep(&store, &format!("http://a/{n}"), &[0; 100]);
        }
        let (entries, bytes, evicted) = store.census();
        assert!(bytes <= 1_000 && entries <= 10 && entries + evicted as usize == 20, "{entries} {bytes} {evicted}");
        assert_eq!(files(dir.path()), 2 * entries);
        assert!(store.draft(1_001).is_err());
        drop(store.draft(500).unwrap());
        assert_eq!(store.census().1, store.census().0 as u64 * 100);
        assert_eq!(files(dir.path()), 2 * store.census().0);
        let found = store.find("http://a/19");
        let entry = &found.as_slice()[0];
        fs::remove_file(store.path(entry.id, "body")).unwrap();
        assert!(store.open_body(entry).is_err());
        assert!(store.find("http://a/19").as_slice().is_empty(), "what has gone is forgotten");
    }
}
