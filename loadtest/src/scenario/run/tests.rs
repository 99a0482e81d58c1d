//! Command lines and what they become.

use clap::Parser;

use super::*;
use crate::scenario::{Cli, Command};

fn parse(line: &str) -> Result<Scenario, String> {
    let words = ["shoal-loadtest", "run"].into_iter().chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    match cli.command {
        Command::Run(args) => Scenario::try_from(*args).map_err(|error| error.to_string()),
        _ => Err("not a run".to_owned()),
    }
}

fn refused(line: &str) -> String {
    parse(line).unwrap_err()
}

const EDGE: &str = "--edge http://a:1";

#[test]
fn the_defaults_are_the_documented_ones() {
    let scenario = parse(EDGE).unwrap();
    assert_eq!(scenario.edges, EdgeSource::Fixed(vec!["http://a:1".parse().unwrap()]));
    assert_eq!(scenario.duration, Duration::from_secs(30));
    assert_eq!(scenario.timeout, Duration::from_secs(30));
    assert!((scenario.rate_per_s - 200.0).abs() < f64::EPSILON);
    assert_eq!(scenario.objects, 400);
    assert_eq!(scenario.sizes.classes().len(), 4);
    assert_eq!((scenario.seed, scenario.workload_seed), (1, 1));
    assert_eq!((scenario.limits.failures_max, scenario.limits.wrong_max), (0, 0));
    assert_eq!(scenario.limits.origin_ratio_max, None);
    assert_eq!(scenario.json, None);
}

#[test]
fn the_origin_brings_its_threshold() {
    let limits = parse(&format!("{EDGE} --origin http://o:1")).unwrap().limits;
    assert_eq!(limits.origin_ratio_max, Some(ORIGIN_RATIO_DEFAULT));
    let limits = parse(&format!("{EDGE} --origin http://o:1 --max-origin-ratio 2")).unwrap().limits;
    assert_eq!(limits.origin_ratio_max, Some(2.0));
}

#[test]
fn edges_come_from_flags_or_from_a_file() {
    let scenario = parse("--edge http://a:1 --edge http://b:1 --edges http://c:1,http://d:1");
    let EdgeSource::Fixed(edges) = scenario.unwrap().edges else { panic!("flags were given") };
    assert_eq!(edges.len(), 4);
    let scenario = parse("--edges-file list --edge-down-grace 3s").unwrap();
    let down_grace = Duration::from_secs(3);
    assert_eq!(scenario.edges, EdgeSource::File { path: "list".into(), down_grace });
}

#[test]
fn json_goes_to_stdout_or_to_a_file() {
    assert_eq!(parse(&format!("{EDGE} --json")).unwrap().json, Some(JsonTarget::Stdout));
    let json = parse(&format!("{EDGE} --json out.json")).unwrap().json;
    assert_eq!(json, Some(JsonTarget::File("out.json".into())));
}

#[test]
fn what_makes_no_sense_is_refused_with_flag_and_remedy() {
    let cases = [
        ("", "give --edge URL"),
        ("--edge http://a:1 --edges http://a:1/", "http://a:1 is given twice"),
        ("--edge http://a:1 --max-origin-ratio 1", "--max-origin-ratio needs"),
        ("--edge http://a:1 --max-object-ratio 1", "--max-object-ratio needs"),
        ("--edge http://a:1 --min-offload 50", "add --origin URL"),
        ("--edge a:1", "'--edge <URL>': `a:1` does not start with http://"),
        ("--edge http://a:1 --duration 30", "`30` has no unit"),
        ("--edge http://a:1 --duration 25h", "between 1ms and 24h"),
        ("--edge http://a:1 --rate 0", "between 0.01 and 100000"),
        ("--edge http://a:1 --rate NaN", "between 0.01 and 100000"),
        ("--edge http://a:1 --objects 0", "between 1 and 1000000"),
        ("--edge http://a:1 --sizes 4XB:1", "has no unit"),
        ("--edge http://a:1 --prefix a/b", "letters, digits"),
        ("--edge http://a:1 --host a@b", "must be a host name"),
        ("--edge http://a:1 --edge-down-grace 1s", "--edges-file"),
        ("--edge http://a:1 --edges-file f", "cannot be used with"),
        ("--edge http://a:1 --max-in-flight 0", "between 1 and 16384"),
    ];
    for (line, wanted) in cases {
        let message = refused(line);
        assert!(message.contains(wanted), "`{line}` said: {message}");
    }
}
