//! `hostler yard seed` and `seeds`: the same seed is the same story, and wrong options are said.

use crate::cli::House;

#[test]
fn a_seed_is_replayed_to_the_same_hash_without_a_region() {
    let house = House::new();
    let replay = || house.run(&["-o", "json", "yard", "seed", "3", "--machines", "4"]).json();
    let (first, second) = (replay(), replay());
    assert_eq!(first, second);
    let report = first.as_array().map_or(&first, |all| &all[0]);
    assert_eq!(report["machines"], 4);
    assert_eq!(report["ready"].as_u64().unwrap() + report["failed"].as_u64().unwrap(), 4, "{report}");
    assert_eq!(report["hash"].as_str().unwrap().len(), 64);
    let traced = house.run(&["yard", "seed", "3", "--machines", "4", "--trace"]);
    assert_eq!(traced.code, 0, "{}", traced.err);
    assert!(traced.out.contains("machine m0 commission") && traced.out.contains(report["hash"].as_str().unwrap()));
    let several = house.run(&["yard", "seeds", "3..5", "--machines", "4"]);
    assert_eq!((several.code, several.out.lines().count()), (0, 2), "{}", several.err);
}

#[test]
fn wrong_options_of_a_replay_are_said() {
    let house = House::new();
    house.run(&["yard", "seeds", "5..5"]).fails(2, "with TO the greater");
    house.run(&["yard", "seeds", "5"]).fails(2, "it is FROM..TO of two whole numbers");
    house.run(&["yard", "seed", "5", "--machines", "0"]).fails(2, "it is a whole number from 1 to 5000");
    house.run(&["yard", "seed", "x"]).fails(2, "it is a whole number from 0 to 18446744073709551615");
}
