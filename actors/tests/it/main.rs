//! One test binary: decisions obey their laws, and the shell its order.

mod machine;
mod machine_laws;
mod shell;
mod states_doc;
mod story;
