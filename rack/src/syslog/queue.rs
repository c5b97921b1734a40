//! Lines that wait: bounded in bytes, with a bound for each machine, so that one that floods loses its own lines only. What is lost
//! is counted and said in the machine's own log.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::clock;
use schema::{
    logs::{LogLine, LogSource},
    time::Timestamp,
};
use tokio::sync::Notify;

/// A machine may take that part of the room.
const SHARE: usize = 4;
/// Losses gather for that long before a line says how many they were: a flood must not become one of such lines.
const SAY: Duration = Duration::from_secs(1);

/// A queue with one taker. Cloned freely.
#[derive(Debug, Clone)]
pub struct Queue(Arc<Inner>);

/// The two queues of a rack: they outlive the service, which may be started again.
#[derive(Debug, Clone)]
pub struct Lines {
    /// For the region, or for the files of a rack without one.
    pub region: Queue,
    /// For an external server.
    pub remote: Queue,
}

impl Lines {
    /// Two queues of `room` bytes each.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self { region: Queue::new(room), remote: Queue::new(room) }
    }
}

#[derive(Debug)]
struct Inner {
    waiting: Mutex<Waiting>,
    come: Notify,
    gone: Notify,
}

#[derive(Debug)]
struct Waiting {
    room: usize,
    lines: VecDeque<LogLine>,
    bytes: usize,
    /// Bytes that wait, by machine.
    by_source: HashMap<LogSource, usize>,
    /// Lines that were lost and are not yet said to be.
    lost: HashMap<LogSource, Lost>,
}

#[derive(Debug)]
struct Lost {
    lines: u64,
    since: Timestamp,
    why: &'static str,
    host: String,
}

impl Queue {
    /// A queue of `room` bytes.
    #[must_use]
    pub fn new(room: usize) -> Self {
        let waiting =
            Waiting { room, lines: VecDeque::new(), bytes: 0, by_source: HashMap::new(), lost: HashMap::new() };
        Self(Arc::new(Inner { waiting: Mutex::new(waiting), come: Notify::new(), gone: Notify::new() }))
    }

    /// Takes lines in; how many were lost for want of room.
    pub fn push(&self, lines: impl IntoIterator<Item = LogLine>) -> u64 {
        let mut waiting = self.waiting();
        let lost = lines.into_iter().filter_map(|line| waiting.push(line)).count();
        drop(waiting);
        self.0.come.notify_one();
        lost as u64
    }

    /// Notes that a line was lost before it came here.
    pub fn lost(&self, source: LogSource, host: &str, why: &'static str, now: Timestamp) {
        let mut waiting = self.waiting();
        // Whoever waits must know that there will be something to say.
        let news = waiting.lost.is_empty();
        waiting.lose(source, host, why, now);
        drop(waiting);
        if news {
            self.0.come.notify_one();
        }
    }

    /// The next lines, up to about `bytes`; waits until there are some.
    pub async fn take(&self, bytes: usize) -> Vec<LogLine> {
        loop {
            let (lines, to_be_said) = {
                let mut waiting = self.waiting();
                (waiting.take(bytes, clock::now()), !waiting.lost.is_empty())
            };
            if !lines.is_empty() {
                self.0.gone.notify_waiters();
                return lines;
            }
            tokio::select! {
                () = self.0.come.notified() => {}
                () = tokio::time::sleep(SAY), if to_be_said => {}
            }
        }
    }

    /// Waits until that machine's part, and the whole, are half empty: who can be made to wait loses nothing.
    pub async fn room(&self, source: LogSource) {
        while !self.waiting().has_room(source) {
            tokio::select! {
                () = self.0.gone.notified() => {}
                // What was taken between the look and the wait.
                () = tokio::time::sleep(SAY / 10) => {}
            }
        }
    }

    /// Puts lines back in front that were taken and did not arrive. Their room was theirs.
    pub fn give_back(&self, lines: Vec<LogLine>) {
        let mut waiting = self.waiting();
        lines.into_iter().rev().for_each(|line| waiting.put_back(line));
        drop(waiting);
        self.0.come.notify_one();
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.waiting().bytes
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// `Some(())`: the line is lost.
    fn push(&mut self, line: LogLine) -> Option<()> {
        let size = line.size();
        let held = self.by_source.get(&line.source).copied().unwrap_or(0);
        if self.bytes + size > self.room {
            self.lose(line.source, &line.host, "the rack's queue was full", line.at);
            return Some(());
        }
        if held + size > self.room / SHARE {
            self.lose(line.source, &line.host, "the machine's part of the rack's queue was full", line.at);
            return Some(());
        }
        self.add(line);
        None
    }

    fn has_room(&self, source: LogSource) -> bool {
        let held = self.by_source.get(&source).copied().unwrap_or(0);
        held <= self.room / SHARE / 2 && self.bytes <= self.room / 2
    }

    fn add(&mut self, line: LogLine) {
        self.counted(&line);
        self.lines.push_back(line);
    }

    fn put_back(&mut self, line: LogLine) {
        self.counted(&line);
        self.lines.push_front(line);
    }

    fn counted(&mut self, line: &LogLine) {
        let size = line.size();
        self.bytes += size;
        *self.by_source.entry(line.source).or_default() += size;
    }

    fn lose(&mut self, source: LogSource, host: &str, why: &'static str, now: Timestamp) {
        let lost = self.lost.entry(source).or_insert_with(|| Lost { lines: 0, since: now, why, host: host.to_owned() });
        lost.lines += 1;
        lost.why = why;
    }

    fn take(&mut self, most: usize, now: Timestamp) -> Vec<LogLine> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(line) = self.lines.pop_front_if(|line| bytes == 0 || bytes + line.size() <= most) {
            let size = line.size();
            bytes += size;
            self.bytes -= size.min(self.bytes);
            if let Some(held) = self.by_source.get_mut(&line.source) {
                *held -= size.min(*held);
                if *held == 0 {
                    self.by_source.remove(&line.source);
                }
            }
            taken.push(line);
        }
        // A clock that stepped back must not keep a loss unsaid.
        let due = |lost: &Lost| now.0.abs_diff(lost.since.0) >= SAY.as_micros() as u64;
        for (source, lost) in self.lost.extract_if(|_, lost| due(lost)) {
            taken.push(LogLine::lost(lost.lines, lost.why, source, &lost.host, now));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schema::id::{AttemptId, SystemId};

    use super::*;

    fn line(machine: u8, text: &str) -> LogLine {
        let machine = SystemId::from_draws([machine % 24; 6]);
        let source = LogSource::Machine { machine, attempt: AttemptId(1) };
        LogLine::heard(text.as_bytes(), source, "host", Timestamp(1))
    }

    /// A queue's inside, with what it was asked to keep and when.
    fn waiting(room: usize) -> Waiting {
        Waiting { room, lines: VecDeque::new(), bytes: 0, by_source: HashMap::new(), lost: HashMap::new() }
    }

    const LATER: Timestamp = Timestamp(2_000_000);

    #[test]
    fn one_that_floods_loses_its_own_lines_and_is_told_so_in_line() {
        let mut queue = waiting(10_000);
        let lost = std::iter::repeat_n(line(1, &"x".repeat(32)), 200).filter_map(|l| queue.push(l)).count();
        assert!(lost > 100, "{lost}");
        assert_eq!(queue.push(line(2, "fine")), None, "others have their room");
        let taken = queue.take(usize::MAX, Timestamp(2));
        assert!(taken.iter().any(|l| l.text == "fine") && queue.bytes == 0 && queue.by_source.is_empty());
        let said = queue.take(usize::MAX, LATER);
        assert_eq!(said.len(), 1, "once a second, not once a line");
        assert_eq!(said[0].text, format!("{lost} lines lost: the machine's part of the rack's queue was full"));
        assert!(queue.take(usize::MAX, Timestamp(i64::MAX)).is_empty());
    }

    #[tokio::test]
    async fn who_waits_gets_lines_at_once_and_what_did_not_arrive_comes_first() {
        let queue = Queue::new(10_000);
        let taker = tokio::spawn({
            let queue = queue.clone();
            async move { queue.take(1_000).await }
        });
        tokio::task::yield_now().await;
        queue.push([line(1, "a"), line(1, "b")]);
        let taken = taker.await.unwrap();
        assert_eq!(taken.len(), 2);
        queue.push([line(1, "c")]);
        queue.give_back(taken);
        let texts: Vec<_> = queue.take(1_000).await.into_iter().map(|l| l.text).collect();
        assert_eq!(texts, ["a", "b", "c"]);
        let full = std::iter::repeat_n(line(1, &"x".repeat(32)), 20);
        assert_eq!(queue.push(full), 0);
        let (waits, taken) = tokio::join!(queue.room(line(1, "").source), async {
            tokio::task::yield_now().await;
            queue.take(10_000).await
        });
        assert_eq!((waits, taken.len()), ((), 20));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_without_a_word(pushes in prop::collection::vec((0_u8..4, 0_usize..300, any::<bool>()), 0..200)) {
            let (mut queue, mut pushed, mut seen, mut said) = (waiting(4_000), 0, 0, 0);
            let mut count = |lines: Vec<LogLine>| for line in lines {
                match line.text.split_once(" line") {
                    Some((n, rest)) if rest.contains("lost: ") => said += n.parse::<u64>().unwrap(),
                    _ => seen += 1,
                }
            };
            for (n, (machine, len, take)) in pushes.into_iter().enumerate() {
                queue.push(line(machine, &"x".repeat(len)));
                pushed += 1;
                prop_assert!(queue.bytes <= 4_000);
                if take {
                    count(queue.take(600, Timestamp(n as i64 * 100_000)));
                }
            }
            while !queue.lines.is_empty() {
                count(queue.take(600, LATER));
            }
            count(queue.take(600, Timestamp(i64::MAX)));
            prop_assert_eq!(seen + said, pushed);
        }
    }
}
