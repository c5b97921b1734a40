//! Which actors are awake, by id. An actor is woken on first use, by one caller; what loading means is the caller's business.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use actors::{core::Core, shell::ActorRef};
use tokio::sync::OnceCell;

type Cell<C> = Arc<OnceCell<ActorRef<C>>>;

/// The awake actors of one kind.
pub struct Directory<C: Core> {
    cells: Mutex<HashMap<C::Id, Cell<C>>>,
}

impl<C: Core> Default for Directory<C> {
    fn default() -> Self {
        Self { cells: Mutex::default() }
    }
}

impl<C: Core> Directory<C> {
    /// The actor of that id; `wake` starts it when it sleeps or has ended. Of several callers one wakes, the others wait for it.
    ///
    /// # Errors
    /// Those of `wake`.
    pub async fn get<E, F>(&self, id: &C::Id, wake: impl Fn() -> F) -> Result<ActorRef<C>, E>
    where
        F: Future<Output = Result<ActorRef<C>, E>>,
    {
        loop {
            let cell = self.cells().entry(id.clone()).or_default().clone();
            match cell.get_or_try_init(&wake).await {
                Ok(actor) if !actor.is_gone() => return Ok(actor.clone()),
                Ok(_) => self.drop_cell(id, &cell),
                Err(error) => {
                    self.drop_cell(id, &cell);
                    return Err(error);
                }
            }
        }
    }

    /// The actor of that id, if it is awake.
    #[must_use]
    pub fn awake(&self, id: &C::Id) -> Option<ActorRef<C>> {
        self.cells().get(id)?.get().filter(|actor| !actor.is_gone()).cloned()
    }

    /// All that are awake.
    #[must_use]
    pub fn all(&self) -> Vec<ActorRef<C>> {
        self.cells().values().filter_map(|cell| cell.get().cloned()).filter(|actor| !actor.is_gone()).collect()
    }

    fn drop_cell(&self, id: &C::Id, cell: &Cell<C>) {
        let mut cells = self.cells();
        // Another caller may be waking it in this very cell: it keeps its own hold on it.
        if cells.get(id).is_some_and(|present| Arc::ptr_eq(present, cell)) {
            cells.remove(id);
        }
    }

    fn cells(&self) -> MutexGuard<'_, HashMap<C::Id, Cell<C>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
