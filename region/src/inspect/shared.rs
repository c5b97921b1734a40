//! What watchers are told, made once for all who watch the same: a topic lives as long as somebody watches it, and is made anew when what was
//! said of it is too old for one of them. Knows no topic.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use actors::clock;

/// The topics that somebody watches.
#[derive(Default)]
pub struct Topics(Mutex<HashMap<String, Weak<Topic>>>);

/// One topic.
#[derive(Default)]
pub struct Topic {
    name: String,
    said: tokio::sync::Mutex<Option<Arc<Said>>>,
}

/// A topic's state.
pub struct Said {
    /// Another one when the state is another.
    pub version: u64,
    /// The event's data, as it is sent.
    pub data: String,
    /// What of it must differ to be another state.
    key: String,
    taken: Instant,
}

/// A state just made: the event's data, and what of it must differ to be told.
pub struct Fresh {
    pub data: String,
    pub key: String,
}

impl Topics {
    /// The topic of that name, for as long as it is held.
    pub fn watch(&self, name: &str) -> Arc<Topic> {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = topics.get(name).and_then(Weak::upgrade) {
            return watched;
        }
        topics.retain(|_, topic| topic.strong_count() > 0);
        let topic = Arc::new(Topic { name: name.to_owned(), ..Topic::default() });
        topics.insert(name.to_owned(), Arc::downgrade(&topic));
        topic
    }
}

impl Topic {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its state: what was said within `older`, or what `make` says now, once for all who wait for it.
    pub async fn state(&self, older: Duration, make: impl AsyncFnOnce() -> Fresh) -> Arc<Said> {
        let asked = clock::tick();
        let mut said = self.said.lock().await;
        let young = |said: &&Arc<Said>| said.taken >= asked || asked.saturating_duration_since(said.taken) < older;
        if let Some(said) = said.as_ref().filter(young) {
            return said.clone();
        }
        let taken = clock::tick();
        let Fresh { data, key } = make().await;
        let version = said.as_ref().map_or(1, |before| before.version + u64::from(before.key != key));
        let fresh = Arc::new(Said { version, data, key, taken });
        *said = Some(fresh.clone());
        fresh
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[tokio::test]
    async fn a_topic_is_made_once_for_all_its_watchers_and_told_anew_only_when_it_differs() {
        let (topics, made) = (Topics::default(), AtomicUsize::new(0));
        let make = async |key: &str, data: &str| {
            made.fetch_add(1, SeqCst);
            tokio::task::yield_now().await;
            Fresh { data: data.into(), key: key.into() }
        };
        let (one, two) = (topics.watch("summary"), topics.watch("summary"));
        assert!(Arc::ptr_eq(&one, &two) && one.name() == "summary");
        let hour = Duration::from_secs(3_600);
        let both = tokio::join!(one.state(hour, || make("a", "1")), two.state(hour, || make("b", "2")));
        assert_eq!((made.load(SeqCst), both.0.version, both.1.data.as_str()), (1, 1, "1"));
        // Who takes nothing old does not get what was begun before it asked; all who ask meanwhile share the next one.
        let (zero, three) = (Duration::ZERO, topics.watch("summary"));
        let (first, second, third) = tokio::join!(
            one.state(zero, || make("a", "3")),
            two.state(zero, || make("a", "4")),
            three.state(zero, || make("b", "5"))
        );
        assert_eq!((made.load(SeqCst), first.version, first.data.as_str()), (3, 1, "3"), "the same key: no news");
        assert!(Arc::ptr_eq(&second, &third) && second.data == "4");
        assert_eq!(one.state(zero, || make("b", "6")).await.version, 2);
        drop((one, two, three));
        topics.watch("other");
        assert_eq!(topics.0.lock().unwrap().len(), 1, "what nobody watches is forgotten");
    }
}
