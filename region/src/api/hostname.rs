//! Names for machines that come without one: an adjective and an animal. Knows nothing of which names are taken.

const ADJECTIVES: [&str; 64] = [
    "able", "agile", "alert", "amber", "ample", "apt", "avid", "bold", "brave", "brief", "bright", "brisk", "calm",
    "candid", "civil", "clear", "clever", "cosy", "crisp", "daring", "deft", "eager", "early", "fair", "fine", "firm",
    "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "hardy", "honest", "humble", "jolly",
    "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry", "mild", "modest", "neat", "nimble", "noble",
    "patient", "plucky", "proud", "quick", "quiet", "ready", "robust", "sharp", "sober", "steady", "sunny", "swift",
    "tidy", "witty",
];

const ANIMALS: [&str; 64] = [
    "adder", "badger", "bear", "beaver", "bison", "boar", "bream", "camel", "carp", "cod", "crane", "crow", "deer",
    "dingo", "dove", "eagle", "eel", "egret", "elk", "falcon", "ferret", "finch", "fox", "gecko", "gibbon", "goat",
    "goose", "gull", "hare", "hawk", "heron", "horse", "ibex", "ibis", "jackal", "kite", "koala", "lark", "lemur",
    "lion", "llama", "lynx", "mink", "mole", "moose", "newt", "okapi", "oriole", "otter", "owl", "panda", "perch",
    "pike", "puffin", "quail", "raven", "robin", "seal", "stork", "swan", "tapir", "trout", "wolf", "wren",
];

/// The name that these two draws pick. After many misses give `number`, so that names do not run out.
#[must_use]
pub fn pick(adjective: u32, animal: u32, number: Option<u32>) -> String {
    let at = |list: &'static [&'static str; 64], draw: u32| list[(draw % 64) as usize];
    let name = format!("{}-{}", at(&ADJECTIVES, adjective), at(&ANIMALS, animal));
    number.map_or_else(|| name.clone(), |n| format!("{name}-{n}"))
}

/// A random name that `taken` does not know.
pub fn fresh(taken: impl Fn(&str) -> bool) -> String {
    let mut tries = 0;
    loop {
        // 4,096 pairs: after some misses numbers are added, so the loop ends for any fleet.
        let number = (tries > 8).then(|| rand::random::<u32>() % 10_u32.pow((tries / 8).clamp(2, 9)));
        let name = pick(rand::random(), rand::random(), number);
        if !taken(&name) {
            return name;
        }
        tries += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_host_name_and_a_full_house_gets_numbers() {
        for draw in 0..64 {
            pick(draw, draw, None).parse::<schema::net::HostName>().unwrap();
        }
        let name = fresh(|n| n.split('-').count() == 2);
        assert_eq!(name.split('-').count(), 3, "{name}");
    }
}
