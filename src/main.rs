//! The one binary: role dispatch and the operator's commands.

fn main() {}
