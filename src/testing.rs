//! What the unit tests of several rooms share.

use proptest::test_runner::Config;

/// How often a property is tried: so many times, or as `FORELAND_FUZZ_CASES` says.
pub fn cases(usual: u32) -> Config {
    let cases = std::env::var("FORELAND_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual);
    Config { max_shrink_iters: 10_000, ..Config::with_cases(cases) }
}
