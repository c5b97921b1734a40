//! A rack whose disk is full, and has room again: nothing needs a restart, and no report gets a number twice. Needs root, for a small tmpfs.

use std::{fs, io::Write, path::Path};

use actors::{
    core::TraceId,
    leases::{Kind, Origin, Row},
};
use rack::{
    dhcp::journal::{LeaseStore, RedbStore},
    state::{NewReport, OutboxLimits, State},
};
use schema::{
    id::{AttemptId, ReportSeq},
    messages::report::Fact,
    service::Health,
    time::Timestamp,
};

use crate::{
    boot_yard::lease,
    peers_dhcp::{ready, run},
};

/// A disk of 16 MiB.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Self {
        let small = Self(tempfile::tempdir().unwrap());
        run("mount", &["-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", small.path().to_str().unwrap()]);
        small
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self) {
        let mut ballast = fs::File::create(self.path().join("ballast")).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while ballast.write_all(&vec![7; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", &[self.path().to_str().unwrap()]);
    }
}

fn report(size: usize) -> NewReport {
    let fact = Fact::OrderRefused { why: "x".repeat(size), remedy: String::new() };
    let machine = "abc234".parse().unwrap();
    NewReport { machine, attempt: AttemptId(1), at: Timestamp(1), fact, trace: TraceId(7) }
}

fn rows(from: u8) -> Vec<Row> {
    let row = |n: u8| Row {
        lease: lease(&format!("10.77.{from}.{n}"), &format!("52:54:00:77:{from:02x}:{n:02x}")),
        kind: Kind::Bound,
        origin: Origin::Own,
    };
    (1..250).map(row).collect()
}

#[tokio::test]
async fn peers_disk_a_full_disk_is_told_and_one_with_room_again_goes_on() {
    if !ready(&["mount", "umount"]) {
        return;
    }
    let disk = Small::new();
    let state = State::open(disk.path(), OutboxLimits::default()).unwrap();
    let mut leases = RedbStore::open(disk.path(), state.disk().clone()).unwrap();
    state.report(vec![report(10)]).await.unwrap();
    leases.commit(&rows(0)).unwrap();
    assert_eq!(state.disk().trouble(), None);

    disk.fill();
    let mut kept = 1;
    while state.report(vec![report(40_000)]).await.is_ok() {
        kept += 1;
        assert!(kept < 2_000, "the disk does not fill");
    }
    let trouble = state.disk().trouble().unwrap();
    let why = trouble.last_error.unwrap();
    assert_eq!((trouble.service.as_str(), trouble.health), ("disk", Health::Dead));
    assert!(why.why.contains("No space") && why.remedy.contains("make room"), "{why:?}");
    let refused = (1..255).find(|n| leases.commit(&rows(*n)).is_err()).unwrap();
    assert!(state.report(vec![report(40_000)]).await.is_err(), "it is full still");

    disk.free();
    state.report(vec![report(40_000)]).await.unwrap();
    assert_eq!(state.disk().trouble(), None);
    leases.commit(&rows(refused)).unwrap();
    assert_eq!(leases.load().unwrap().len(), 249 * (usize::from(refused) + 1));
    let mut seen = Vec::new();
    while let Ok(batch) = state.reports_after(ReportSeq(seen.len() as u64), 1 << 20)
        && !batch.is_empty()
    {
        seen.extend(batch.iter().map(|(_, report)| report.seq.0));
    }
    assert_eq!(seen, (1..=kept + 1).collect::<Vec<u64>>());
    state.close().await;
}
