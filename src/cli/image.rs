//! `hostler image …`: adds ephemeral images and boot loaders to a region. How an image is built stands in `crate::image`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    Global,
    client::{Client, Fields},
    failure::{Code, Failure},
    machine::array,
    output::{self, Column},
};
use crate::image::build::{BuildError, BuildOptions};

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add an image: a kernel, an initrd and a squashfs
    Add(Add),
    /// List images
    List,
    /// Make an image from the distribution's packages (needs root and mmdebstrap)
    Build(Build),
    /// Delete an image
    Delete {
        /// Name or id
        image: String,
    },
    /// Bring the boot loaders of the distribution's packages into the region's store
    Loaders {
        /// Instead: this loader, as NAME=FILE (bootx64.efi=/usr/lib/…); may be repeated
        #[arg(long = "file", value_name = "NAME=FILE")]
        files: Vec<String>,
        /// Instead: list those there are
        #[arg(long, conflicts_with = "files")]
        list: bool,
    },
}

/// An image to build.
#[derive(Debug, Args)]
pub struct Build {
    /// Debian's code name
    #[arg(long, default_value = "bookworm")]
    pub release: String,
    /// amd64 or arm64
    #[arg(long, default_value = "amd64")]
    pub arch: String,
    /// generic knows real hardware; cloud only virtual machines
    #[arg(long, default_value = "generic")]
    pub kernel: String,
    /// With drivers' firmware from the non-free components
    #[arg(long)]
    pub firmware: bool,
    /// More packages, separated by commas
    #[arg(long, value_name = "PACKAGE", value_delimiter = ',')]
    pub include: Vec<String>,
    /// Where packages come from; left out, this machine's own mirrors
    #[arg(long, default_value = "")]
    pub mirror: String,
    /// Folder for the image's files
    #[arg(long)]
    pub out: PathBuf,
}

/// An image, from a folder that `image build` made or from single files.
#[derive(Debug, Args)]
pub struct Add {
    /// Folder with `image.json` and the files that it names
    pub folder: Option<PathBuf>,
    /// OS/RELEASE/ARCH/FLAVOUR, as in debian/bookworm/amd64/generic
    #[arg(long)]
    pub name: Option<String>,
    #[arg(long)]
    pub kernel: Option<PathBuf>,
    #[arg(long)]
    pub initrd: Option<PathBuf>,
    #[arg(long)]
    pub squashfs: Option<PathBuf>,
    /// Kernel parameters with placeholders: {squashfs_url} {hostname} {preseed_url} {log_host} {log_port}
    #[arg(long)]
    pub kernel_params: Option<String>,
    /// Choose it for machines of its architecture
    #[arg(long)]
    pub default: bool,
}

const COLUMNS: &[Column] = &[
    ("NAME", "/name"),
    ("ARCH", "/arch"),
    ("DEFAULT", "/default"),
    ("KERNEL", "/kernel/len"),
    ("INITRD", "/initrd/len"),
    ("SQUASHFS", "/squashfs/len"),
    ("ID", "/id"),
];

const LOADERS: &[Column] = &[("NAME", "/name"), ("SIZE", "/body/len"), ("SHA256", "/body/sha256")];

/// Runs one of the commands.
///
/// # Errors
/// As the files or the region say.
pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let client = || Client::new(global);
    match command {
        Command::Add(add) => add.run(global, &client()?).await,
        Command::List => {
            let images = client()?.own(Method::GET, "/images", None).await?;
            output::list(global.output, COLUMNS, "/name", array(&images))
        }
        Command::Build(build) => build.run(),
        Command::Delete { image } => {
            client()?.own(Method::DELETE, &format!("/images/{image}"), None).await?;
            eprintln!("{image}: deleted");
            Ok(())
        }
        Command::Loaders { files, list } => loaders(global, &client()?, &files, list).await,
    }
}

async fn loaders(global: &Global, client: &Client, files: &[String], list: bool) -> Result<(), Failure> {
    for pair in files {
        let (name, path) = pair.split_once('=').ok_or_else(|| {
            Failure::usage(
                format!("\"{pair}\" is not NAME=FILE"),
                "write it as --file bootx64.efi=/path/to/shimx64.efi",
            )
        })?;
        add_loader(client, name, Path::new(path)).await?;
    }
    if files.is_empty() && !list {
        let folder = tempfile::tempdir().map_err(|e| Failure::file("make", &std::env::temp_dir(), &e))?;
        let found = crate::image::loaders::collect(folder.path()).map_err(|e| Failure::failed(e.to_string()))?;
        for (name, path) in found {
            add_loader(client, &name, &path).await?;
        }
    }
    let all = client.own(Method::GET, "/images/loaders", None).await?;
    output::list(global.output, LOADERS, "/name", array(&all))
}

impl Build {
    fn run(self) -> Result<(), Failure> {
        let Self { release, arch, kernel, firmware, include, mirror, out } = self;
        let options = BuildOptions { release, arch, kernel, firmware, include, mirror, out };
        let made = crate::image::build::build(&options).map_err(|e| {
            let code = if matches!(e, BuildError::Option { .. }) { Code::Usage } else { Code::Failed };
            Failure::new(code, e.to_string(), "")
        })?;
        eprintln!("Add it with: hostler image add {}", made.display());
        output::print(&format!("{}\n", made.display()))
    }
}

/// Uploads a file and names it as the boot file `name`.
///
/// # Errors
/// As the file or the region says.
pub async fn add_loader(client: &Client, name: &str, path: &Path) -> Result<(), Failure> {
    let body = upload(client, path).await?;
    let form = vec![("name", name.to_owned()), ("body", body)];
    client.own(Method::POST, "/images/loaders", Some(&form)).await.map(|_| ())
}

impl Add {
    async fn run(mut self, global: &Global, client: &Client) -> Result<(), Failure> {
        if let Some(folder) = self.folder.take() {
            self.read(&folder)?;
        }
        let missing = |what: &str| {
            Failure::usage(
                format!("--{what} is missing"),
                "give a folder of `hostler image build`, or all of --name, --kernel, --initrd",
            )
        };
        let name = self.name.ok_or_else(|| missing("name"))?;
        let kernel = self.kernel.ok_or_else(|| missing("kernel"))?;
        let initrd = self.initrd.ok_or_else(|| missing("initrd"))?;
        let mut form: Fields<'_> = vec![("name", name)];
        form.push(("kernel", upload(client, &kernel).await?));
        form.push(("initrd", upload(client, &initrd).await?));
        if let Some(squashfs) = &self.squashfs {
            form.push(("squashfs", upload(client, squashfs).await?));
        }
        form.push(("kernel_params", self.kernel_params.unwrap_or_default()));
        if self.default {
            form.push(("default", "true".into()));
        }
        let image = client.own(Method::POST, "/images", Some(&form)).await?;
        output::one(global.output, COLUMNS, "/name", &image)
    }

    /// What `image.json` of a folder says, under what the command line says.
    fn read(&mut self, folder: &Path) -> Result<(), Failure> {
        let path = folder.join("image.json");
        let text = std::fs::read_to_string(&path).map_err(|e| Failure::file("read", &path, &e))?;
        let told: Value = serde_json::from_str(&text)
            .map_err(|e| Failure::usage(format!("{} is not JSON: {e}", path.display()), "build the image again"))?;
        let word = |name: &str| told[name].as_str().map(str::to_owned);
        let file = |name: &str| word(name).map(|f| folder.join(f));
        self.name = self.name.take().or_else(|| word("name"));
        self.kernel = self.kernel.take().or_else(|| file("kernel"));
        self.initrd = self.initrd.take().or_else(|| file("initrd"));
        self.squashfs = self.squashfs.take().or_else(|| file("squashfs"));
        self.kernel_params = self.kernel_params.take().or_else(|| word("kernel_params"));
        Ok(())
    }
}

/// Uploads a file unless the region holds it; its SHA-256.
async fn upload(client: &Client, path: &Path) -> Result<String, Failure> {
    let (sha256, len) = hashed(path)?;
    let target = format!("/images/bodies/{sha256}");
    match client.own(Method::GET, &target, None).await {
        Ok(_) => {
            eprintln!("{}: held already", path.display());
            return Ok(sha256);
        }
        Err(failure) if failure.code == Code::NotFound => {}
        Err(failure) => return Err(failure),
    }
    eprintln!("{}: uploading {len} bytes", path.display());
    let file = tokio::fs::File::open(path).await.map_err(|e| Failure::file("read", path, &e))?;
    client.upload(&target, reqwest::Body::from(file), len).await?;
    Ok(sha256)
}

/// A file's SHA-256 and length, read in pieces.
fn hashed(path: &Path) -> Result<(String, u64), Failure> {
    use std::io::Read;
    let failed = |e: std::io::Error| Failure::file("read", path, &e);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let (mut hash, mut len, mut piece) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut piece).map_err(failed)?;
        if read == 0 {
            break;
        }
        hash.update(piece.get(..read).unwrap_or_default());
        len += read as u64;
    }
    let sha256: [u8; 32] = hash.finalize().into();
    Ok((schema::boot::Sha256(sha256).to_string(), len))
}
