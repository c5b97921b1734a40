//! Making what machines boot: ephemeral images and boot loaders, from the distribution's packages. Uploading is `cli::image`'s.

pub(crate) mod build;
pub(crate) mod loaders;
