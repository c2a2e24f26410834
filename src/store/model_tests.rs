//! The store against a model of it that is a few lines long: whatever happens in whatever order, what has been purged is
//! not served, and nothing else is lost.

mod oracle;
mod steps;
mod threads;
mod world;

use proptest::test_runner::{Config, TestRunner};

use steps::Step;
use world::{Setup, World};

/// Does so many schedules: more where `PROPTEST_CASES` wants more than it does by default.
fn schedules(cases: u32, setup: Setup) {
    let usual = 256;
    let config = Config::default();
    let cases = u32::try_from(u64::from(cases) * u64::from(config.cases) / usual).unwrap_or(u32::MAX).max(1);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..config });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let outcome = runner.run(&steps::schedule(), |schedule| {
        runtime.block_on(run(setup, schedule));
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
}

async fn run(setup: Setup, schedule: Vec<Step>) {
    let mut world = World::new(setup);
    for step in schedule {
        world.step(step).await;
    }
    world.end_of_all().await;
}

#[test]
fn in_memory_alone() {
    schedules(2000, Setup { memory: true, disks: 0, tiny: false });
}

#[test]
fn on_a_disk_alone() {
    schedules(250, Setup { memory: false, disks: 1, tiny: false });
}

#[test]
fn in_memory_and_on_a_disk() {
    schedules(250, Setup { memory: true, disks: 1, tiny: false });
}

#[test]
fn on_several_disks() {
    schedules(120, Setup { memory: true, disks: 3, tiny: false });
}

#[test]
fn where_there_is_too_little_room() {
    schedules(400, Setup { memory: true, disks: 0, tiny: true });
    schedules(100, Setup { memory: true, disks: 1, tiny: true });
}
