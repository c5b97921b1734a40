//! Where actors start: one thread with one arbiter for all state actors, or the present `LocalSet`. Loading them is a directory's business.

use std::{io, sync::Arc, thread};

use actix::{Actor, AsyncContext};
use schema::id::Generation;
use tokio::sync::oneshot;

use super::{ActorRef, Perform, Probe, Registry, Shell};
use crate::core::Core;

/// A thread that hosts actors. Dropping it stops the thread.
#[derive(Debug)]
pub struct Arbiter {
    handle: actix_rt::ArbiterHandle,
    system: actix_rt::System,
    thread: Option<thread::JoinHandle<()>>,
}

/// Where to start an actor. Usable from every thread.
#[derive(Debug, Clone)]
pub struct ArbiterHandle(Host);

#[derive(Debug, Clone)]
enum Host {
    Thread(actix_rt::ArbiterHandle),
    Here,
}

impl Arbiter {
    /// Starts a thread of that name for actors.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(name: &str) -> io::Result<Self> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let system = actix_rt::System::new();
            let current = actix_rt::System::current();
            if sender.send(current).is_ok() {
                system.run().ok(); // The exit code says nothing here.
            }
        })?;
        let system = receiver.recv().map_err(|_| io::Error::other("the actors' thread ended at its start"))?;
        Ok(Self { handle: system.arbiter().clone(), system, thread: Some(thread) })
    }

    /// Where to start actors on it.
    #[must_use]
    pub fn handle(&self) -> ArbiterHandle {
        ArbiterHandle(Host::Thread(self.handle.clone()))
    }

    /// Resolves when every actor that was spawned before has started, its `resume` carried out.
    pub async fn settled(&self) {
        let (sender, receiver) = oneshot::channel();
        // A task of its own comes after the tasks of those actors: the thread runs them in turn.
        self.handle.spawn(async move {
            tokio::task::yield_now().await;
            sender.send(()).unwrap_or_default(); // The caller may have gone.
        });
        receiver.await.ok(); // A stopped arbiter has nothing queued.
    }
}

impl Drop for Arbiter {
    fn drop(&mut self) {
        self.system.stop();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            thread.join().ok(); // It has nothing to hand over.
        }
    }
}

impl ArbiterHandle {
    /// The `LocalSet` (or actix system) of the present thread; [`spawn`] must then be called inside it.
    /// What the deterministic yard and tests under a paused clock use.
    #[must_use]
    pub fn here() -> Self {
        Self(Host::Here)
    }
}

/// Starts an actor at that generation. `Core::resume` runs when `resumed`.
///
/// # Panics
/// With [`ArbiterHandle::here`] outside a `LocalSet`.
pub fn spawn<C: Core, P: Perform<C> + Send>(
    arbiter: &ArbiterHandle,
    core: C,
    generation: Generation,
    perform: P,
    registry: &Registry,
    resumed: bool,
) -> ActorRef<C> {
    let Host::Thread(arbiter) = &arbiter.0 else {
        return spawn_here(core, generation, perform, registry, resumed);
    };
    let me = reference(&core, generation, &perform, registry);
    let (inside, registry) = (me.clone(), registry.clone());
    let address = Shell::start_in_arbiter(arbiter, move |ctx: &mut actix::Context<Shell<C, P>>| {
        inside.attach(ctx.address().recipient());
        Shell::new(core, generation, perform, inside, registry, resumed)
    });
    me.attach(address.recipient());
    me
}

/// [`spawn`] on the present `LocalSet`, for hands that cannot leave their thread.
///
/// # Panics
/// Outside a `LocalSet`.
pub fn spawn_here<C: Core, P: Perform<C>>(
    core: C,
    generation: Generation,
    perform: P,
    registry: &Registry,
    resumed: bool,
) -> ActorRef<C> {
    let me = reference(&core, generation, &perform, registry);
    let (inside, registry) = (me.clone(), registry.clone());
    Shell::create(move |ctx: &mut actix::Context<Shell<C, P>>| {
        inside.attach(ctx.address().recipient());
        Shell::new(core, generation, perform, inside, registry, resumed)
    });
    me
}

fn reference<C: Core, P: Perform<C>>(
    core: &C,
    generation: Generation,
    perform: &P,
    registry: &Registry,
) -> ActorRef<C> {
    let view = core.view();
    let (tally, now) = (registry.kind(C::KIND, C::PARENT), perform.now());
    let probe = Arc::new(Probe::new(tally, core.id().to_string(), perform.capacity(), view.clone(), generation, now));
    registry.add(probe.clone());
    ActorRef::new(core, generation, view, probe)
}
