//! Real TFTP clients against the server: tftp-hpa, atftp, curl, busybox.

use std::{net::SocketAddrV4, path::Path, process::Stdio, sync::Arc, time::Duration};

use rack::tftp::{self, Running, TftpConfig};
use schema::messages::report::{Fact, FileKind};
use tokio::process::Command;

use crate::boot_yard::{Yard, pattern};

fn serve(yard: &Yard, listen: &str) -> Running {
    let config = TftpConfig { listen: listen.parse::<SocketAddrV4>().unwrap(), ..TftpConfig::default() };
    tftp::start(config, Arc::new(yard.desk.clone())).unwrap()
}

/// Whether the program is here. Missing: fails, unless the environment allows to skip.
fn have(program: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|d| d.join(program).is_file());
    if !found {
        assert!(std::env::var("HOSTLER_TEST_SKIP").is_ok_and(|v| v == "1"), "{program} is missing; apt-get install it");
        println!("SKIPPED: {program} is missing");
    }
    found
}

async fn run(program: &str, args: &[&str], dir: &Path) -> (bool, String) {
    let mut command = Command::new(program);
    command.args(args).current_dir(dir).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("ended").unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

fn name_of(yard: &Yard) -> String {
    format!("images/{}/boot-kernel", yard.image().kernel.sha256)
}

async fn arrived(yard: &mut Yard, out: &Path, wanted: &[u8]) {
    assert_eq!(std::fs::read(out).unwrap(), wanted, "the bytes arrived as they are");
    let fact = yard.wait_for("FileFetched", |f| matches!(f, Fact::FileFetched { .. })).await;
    let Fact::FileFetched { kind, bytes, service, .. } = fact else { unreachable!() };
    assert_eq!((kind, bytes, service.as_str()), (FileKind::Kernel, wanted.len() as u64, "tftp"));
}

#[tokio::test]
async fn tftp_hpa_fetches_a_kernel() {
    if !have("tftp") {
        return;
    }
    let kernel = pattern(1_234_567);
    let mut yard = Yard::new(&kernel, 5_248);
    let server = serve(&yard, "127.77.9.1:0");
    let (out, port) = (yard.scratch("out"), server.address().port().to_string());
    let args = ["-m", "octet", "127.77.9.1", &port, "-c", "get", &name_of(&yard), out.to_str().unwrap()];
    let (ok, said) = run("tftp", &args, yard.dir.path()).await;
    assert!(ok && !said.contains("rror"), "{said}");
    arrived(&mut yard, &out, &kernel).await;
}

#[tokio::test]
async fn atftp_fetches_with_every_option() {
    if !have("atftp") {
        return;
    }
    let kernel = pattern(1_428 * 700);
    let mut yard = Yard::new(&kernel, 5_248);
    let server = serve(&yard, "127.77.9.1:0");
    let (out, port, name) = (yard.scratch("out"), server.address().port().to_string(), name_of(&yard));
    for options in [
        &["blksize 8"][..],
        &["blksize 512", "tsize"],
        &["blksize 1428", "timeout 3"],
        &["blksize 65464"],
        &["blksize 1428", "windowsize 4", "tsize"],
        &["blksize 1428", "windowsize 64"],
    ] {
        let mut args: Vec<&str> = options.iter().flat_map(|o| ["--option", o]).collect();
        args.extend(["-g", "-r", &name, "-l", out.to_str().unwrap(), "127.77.9.1", &port]);
        std::fs::remove_file(&out).ok();
        let (ok, said) = run("atftp", &args, yard.dir.path()).await;
        assert!(ok, "{options:?}: {said}");
        arrived(&mut yard, &out, &kernel).await;
    }
}

#[tokio::test]
async fn curl_fetches_and_hears_not_found() {
    if !have("curl") {
        return;
    }
    let kernel = pattern(100_000);
    let mut yard = Yard::new(&kernel, 5_248);
    let server = serve(&yard, "0.0.0.0:0");
    let out = yard.scratch("out");
    // The wildcard answers from the address that was asked.
    for host in ["127.77.9.1", "127.77.9.7"] {
        let url = format!("tftp://{host}:{}/{}", server.address().port(), name_of(&yard));
        for blksize in ["512", "1468", "8"] {
            let args = ["-sS", "--tftp-blksize", blksize, "-o", out.to_str().unwrap(), &url];
            let (ok, said) = run("curl", &args, yard.dir.path()).await;
            assert!(ok, "{blksize}: {said}");
            arrived(&mut yard, &out, &kernel).await;
        }
    }
    let url = format!("tftp://127.77.9.1:{}/grub/x86_64-efi/command.lst", server.address().port());
    let (ok, said) = run("curl", &["-sS", &url], yard.dir.path()).await;
    assert!(!ok && said.contains("(68)"), "{said}"); // CURLE_TFTP_NOTFOUND
    let url = format!("tftp://127.77.9.1:{}/grub/grub.cfg", server.address().port());
    let (ok, said) = run("curl", &["-sS", &url], yard.dir.path()).await;
    assert!(ok && said.contains("linux /images/"), "{said}");
}

#[tokio::test]
async fn busybox_fetches_and_may_not_write() {
    if !have("busybox") {
        return;
    }
    let kernel = pattern(512 * 40);
    let mut yard = Yard::new(&kernel, 5_248);
    let server = serve(&yard, "127.77.9.1:0");
    let (out, port) = (yard.scratch("out"), server.address().port().to_string());
    let get = ["tftp", "-g", "-b", "1400", "-r", &name_of(&yard), "-l", out.to_str().unwrap(), "127.77.9.1", &port];
    let (ok, said) = run("busybox", &get, yard.dir.path()).await;
    assert!(ok, "{said}");
    arrived(&mut yard, &out, &kernel).await;
    let put = ["tftp", "-p", "-l", out.to_str().unwrap(), "-r", "evil", "127.77.9.1", &port];
    let (ok, said) = run("busybox", &put, yard.dir.path()).await;
    assert!(!ok && said.contains("(2)"), "{said}");
    server.stop().await;
}
