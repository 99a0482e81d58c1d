//! Configuration: what is read, what wins, what is refused and how that is said.

use std::fs;

use super::*;

/// A folder with a valid configuration file in it, whose lines can be changed.
struct Written {
    folder: tempfile::TempDir,
    text: String,
}

const VALID: &str = r#"
[node]
name = "node-0"
data_dir = "data"
zone = "a"

[cluster]
id = "test"
listen = "127.0.0.1:7400"
super_nodes = ["127.0.0.1:7500"]
secret_file = "secret"
insecure = true

[edge]
listen = "127.0.0.1:8080"

[store]
budget = "1GiB"
memory = "64MiB"

[[site]]
name = "docs"
hosts = ["docs.example.com"]
origin = "http://127.0.0.1:8000"
"#;

impl Written {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), "ab".repeat(32) + "\n").unwrap();
        Self { folder, text: VALID.trim_start().to_owned() }
    }

    fn with(mut self, line: &str, changed: &str) -> Self {
        assert!(self.text.contains(line), "{line}");
        self.text = self.text.replacen(line, changed, 1);
        self
    }

    fn file(&self) -> PathBuf {
        let file = self.folder.path().join("shoal.toml");
        fs::write(&file, &self.text).unwrap();
        file
    }

    fn load(&self, above: &[(&str, &str, Layer)]) -> Result<Config, Vec<String>> {
        let file = self.file();
        let mut settings = Settings::default();
        for (path, text, layer) in above {
            let key = keys::by_path(path).unwrap();
            let source = match layer {
                Layer::Flag => Source::Flag(key.flag),
                Layer::Variable => Source::Variable(key.variable),
            };
            settings.set(key, Setting { value: Value::Text((*text).to_owned()), source });
        }
        let folder = format!("{}/", self.folder.path().display());
        Config::load(Some(&file), settings).map_err(|errors| {
            errors.0.iter().map(|problem| problem.to_string().replace(&folder, "")).collect()
        })
    }

    fn faults(&self) -> Vec<String> {
        self.load(&[]).unwrap_err()
    }
}

#[derive(Clone, Copy)]
enum Layer {
    Flag,
    Variable,
}

#[test]
fn a_valid_file_is_a_configuration() {
    let written = Written::new();
    let config = written.load(&[]).unwrap();
    assert_eq!(config.node.name, "node-0");
    assert_eq!(config.node.role, ConfiguredRole::Node);
    assert_eq!(config.node.data_dir, written.folder.path().join("data"));
    assert_eq!(config.address(config.cluster.listen), "127.0.0.1:7400");
    assert_eq!(config.cluster.copies, 2);
    assert_eq!(config.admin.listen.port(), 9400);
    assert_eq!(config.log.format, LogFormat::Human);
    assert_eq!(config.log.level, keys::by_path("log.level").unwrap().default);
    let cache = config.cache.unwrap();
    assert_eq!(cache.secret.as_bytes(), &[0xab; 32]);
    assert_eq!((cache.store.budget_bytes, cache.store.memory_bytes), (1 << 30, 64 << 20));
    assert_eq!(cache.store.objects_max, 1 << 20);
    assert_eq!(cache.edge.unknown_host, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(cache.sites[0].name, "docs");
    assert!(!format!("{:?}", cache.secret).contains("ab"));
}

/// A line of the file, what it becomes, and the one fault that is then told.
const FAULTS: &[(&str, &str, &str)] = &[
    (
        "name = \"node-0\"",
        "name = \"Node 0\"",
        "shoal.toml:2: node.name is \"Node 0\"; expected 1 to 63 lower-case",
    ),
    (
        "zone = \"a\"",
        "role = \"boss\"",
        "shoal.toml:4: node.role is \"boss\"; expected \"node\", \"super\" or \"auto\"",
    ),
    (
        "listen = \"127.0.0.1:7400\"",
        "listen = \"localhost\"",
        "shoal.toml:8: cluster.listen is \"localhost\"; expected an address and a port",
    ),
    ("id = \"test\"", "id = \"a b\"", "shoal.toml:7: cluster.id is \"a b\"; expected 1 to 64"),
    (
        "[\"127.0.0.1:7500\"]",
        "[\"a:1\", \"nowhere\"]",
        "shoal.toml:9: cluster.super_nodes is \"nowhere\"; expected host:port",
    ),
    (
        "insecure = true",
        "insecure = \"yes\"",
        "shoal.toml:11: cluster.insecure is \"yes\"; expected true or false",
    ),
    (
        "insecure = true",
        "insecure = true\ncopies = 9",
        "shoal.toml:12: cluster.copies is \"9\"; expected 1 to 8",
    ),
    (
        "insecure = true",
        "insecure = true\ntls = 4",
        "shoal.toml:12: cluster.tls is \"4\"; expected a table",
    ),
    (
        "budget = \"1GiB\"",
        "budget = \"1 gallon\"",
        "shoal.toml:17: store.budget is \"1 gallon\"; expected a size such as",
    ),
    (
        "budget = \"1GiB\"",
        "budget = \"1MiB\"",
        "shoal.toml:17: store.budget is \"1 MiB\"; expected at least 16 MiB",
    ),
    (
        "memory = \"64MiB\"",
        "memory = \"2GiB\"",
        "shoal.toml:18: store.memory is \"2 GiB\"; expected 1 MiB to 1 GiB, which is store.budget",
    ),
    (
        "memory = \"64MiB\"",
        "memory = 4096",
        "shoal.toml:18: store.memory is \"4 KiB\"; expected 1 MiB to 1 GiB",
    ),
    (
        "memory = \"64MiB\"",
        "memory = [1, 2]",
        "shoal.toml:18: store.memory is \"[1, 2]\"; expected a size such as",
    ),
    (
        "[edge]",
        "[edge]\nunknown_host = 500",
        "shoal.toml:14: edge.unknown_host is \"500\"; expected 421 or 404",
    ),
    (
        "[edge]",
        "[edge]\nconnections_max = 0",
        "shoal.toml:14: edge.connections_max is \"0\"; expected 1 to 1000000",
    ),
    (
        "[edge]",
        "[edge]\nstop_wait = \"11m\"",
        "shoal.toml:14: edge.stop_wait is \"11m\"; expected a duration of 0s to 10m",
    ),
    (
        "127.0.0.1:8080",
        "0.0.0.0:7400",
        "shoal.toml:14: edge.listen is \"0.0.0.0:7400\"; expected a port of its own (cluster.",
    ),
    (
        "zone = \"a\"",
        "advertise = \"host:80\"",
        "shoal.toml:4: node.advertise is \"host:80\"; expected a host name or address",
    ),
    (
        "[edge]",
        "[log]\nlevel = \"loud=noise\"\n[edge]",
        "shoal.toml:14: log.level is \"loud=noise\"; expected error, warn",
    ),
    (
        "[edge]",
        "[log]\nformat = \"xml\"\n[edge]",
        "shoal.toml:14: log.format is \"xml\"; expected \"human\" or \"json\"",
    ),
    (
        "secret_file = \"secret\"",
        "secret_file = \"none\"",
        "shoal.toml:10: cluster.secret_file is \"none\"; expected a readable file (No such file",
    ),
    (
        "secret_file = \"secret\"",
        "secret_file = \"shoal.toml\"",
        "shoal.toml:10: cluster.secret_file is \"shoal.toml\"; expected a file with 32 bytes",
    ),
    (
        "origin = \"http",
        "origin = \"gopher",
        "shoal.toml:23: site.origin is \"gopher://127.0.0.1:8000\" (site \"docs\"); write http://",
    ),
];

#[test]
fn every_fault_names_its_place_its_value_and_what_would_be_right() {
    for (line, changed, expected) in FAULTS {
        let faults = Written::new().with(line, changed).faults();
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected}\n{faults:#?}");
        assert_eq!(faults.len(), 1, "{faults:#?}");
    }
}

#[test]
fn unknown_keys_come_with_a_suggestion() {
    let table = [
        ("zone =", "zoen =", "shoal.toml:4: node.zoen is an unknown key; did you mean node.zone?"),
        ("[edge]", "[egde]", "shoal.toml:13: egde is an unknown key; did you mean edge?"),
        ("[edge]", "[edge]\ncopies = 2", "did you mean cluster.copies?"),
        (
            "[store]",
            "[store]\ncolour = 1",
            "store.colour is an unknown key; expected one of budget, memory, objects",
        ),
        (
            "hosts =",
            "host =",
            "shoal.toml:22: site.host is an unknown key; did you mean site.hosts?",
        ),
        ("[[site]]", "[site]", "shoal.toml:20: site is \"a table\"; expected tables [[site]]"),
    ];
    for (line, changed, expected) in table {
        let faults = Written::new().with(line, changed).faults();
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected}\n{faults:#?}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let faults = Written::new()
        .with("name = \"node-0\"", "name = \"\"")
        .with("data_dir = \"data\"", "datadir = \"data\"")
        .with("id = \"test\"", "")
        .with("budget = \"1GiB\"", "budget = \"much\"")
        .with("name = \"docs\"", "name = 7")
        .with("hosts = [", "hots = [")
        .faults();
    let expected = [
        "node.name is \"\"",
        "node.datadir is an unknown key; did you mean node.data_dir?",
        "node.data_dir is missing",
        "cluster.id is missing (cluster.id in the file, --cluster-id or SHOAL_CLUSTER_ID); expected",
        "store.budget is \"much\"",
        "site.name is \"7\": invalid type",
        "site.hots is an unknown key; did you mean site.hosts?",
    ];
    for one in expected {
        assert!(faults.iter().any(|fault| fault.contains(one)), "{one}\n{faults:#?}");
    }
}

#[test]
fn a_missing_key_names_the_ways_to_set_it() {
    let faults = Written::new().with("id = \"test\"", "").faults();
    let ways = "(cluster.id in the file, --cluster-id or SHOAL_CLUSTER_ID)";
    assert!(faults[0].contains(ways), "{faults:?}");
}

#[test]
fn a_site_that_lacks_a_key_is_a_fault() {
    let faults = Written::new().with("hosts = [\"docs.example.com\"]", "").faults();
    assert!(faults[0].starts_with("shoal.toml:20: site") && faults[0].contains("`hosts`"));
    let none = Written::new().with("[[site]]", "[[#").faults();
    assert!(none.iter().any(|fault| fault.contains("not TOML")), "{none:?}");
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let written = Written::new();
    let layers = [("node.name", "from-variable", Layer::Variable)];
    assert_eq!(written.load(&layers).unwrap().node.name, "from-variable");
    let mut below = Settings::default();
    let key = keys::by_path("node.name").unwrap();
    let setting = |text: &str, source| Setting { value: Value::Text(text.into()), source };
    below.set(key, setting("from-variable", Source::Variable(key.variable)));
    let mut above = Settings::default();
    above.set(key, setting("from-flag", Source::Flag(key.flag)));
    below.overlay(above);
    let config = Config::load(Some(&written.file()), below).unwrap();
    assert_eq!(config.node.name, "from-flag");
}

#[test]
fn faults_of_flags_and_variables_name_them() {
    let above = [
        ("edge.listen", "here", Layer::Flag),
        ("store.budget", "much", Layer::Variable),
        ("cluster.super_nodes", "a:1,b", Layer::Variable),
    ];
    let faults = Written::new().load(&above).unwrap_err();
    let expected = [
        "--edge-listen is \"here\"; expected an address and a port",
        "SHOAL_STORE_BUDGET is \"much\"; expected a size",
        "SHOAL_SUPER_NODES is \"b\"; expected host:port",
    ];
    for one in expected {
        assert!(faults.iter().any(|fault| fault.starts_with(one)), "{one}\n{faults:#?}");
    }
}

#[test]
fn paths_in_the_file_are_relative_to_it_and_others_to_the_working_directory() {
    let config = Written::new().load(&[("node.data_dir", "here", Layer::Flag)]).unwrap();
    assert_eq!(config.node.data_dir, std::env::current_dir().unwrap().join("here"));
}

#[test]
fn members_speak_tls_or_openly_do_not() {
    let neither = Written::new().with("insecure = true", "").faults();
    assert!(neither[0].contains("cluster.tls is missing"), "{neither:?}");
    let both = Written::new().with("insecure = true", "insecure = true\ntls.ca = \"ca\"").faults();
    assert!(both[0].contains("shoal.toml:11: cluster.insecure is true, and"), "{both:?}");
    assert!(both[0].contains("shoal.toml:12"), "{both:?}");
    let half = Written::new().with("insecure = true", "tls = { ca = \"ca\" }").faults();
    assert!(half.iter().any(|fault| fault.contains("cluster.tls.key is missing")), "{half:?}");
    let tls = "tls = { ca = \"ca\", cert = \"cert\", key = \"key\" }";
    let unreadable = Written::new().with("insecure = true", tls).faults();
    assert!(unreadable[0].contains("readable PEM file"), "{unreadable:?}");
}

#[test]
fn nodes_need_super_nodes_and_the_secret_and_may_have_no_site() {
    let lonely = Written::new().with("super_nodes = [\"127.0.0.1:7500\"]", "").faults();
    assert!(lonely[0].contains("cluster.super_nodes is missing"), "{lonely:?}");
    let open = Written::new().with("secret_file = \"secret\"", "").faults();
    assert!(open[0].contains("cluster.secret_file is missing"), "{open:?}");
    let mut idle = Written::new();
    idle.text.truncate(idle.text.find("[[site]]").unwrap());
    assert_eq!(idle.load(&[]).unwrap().cache.unwrap().sites, []);
}

#[test]
fn super_nodes_have_no_cache_and_may_be_alone() {
    let founder = [("node.role", "super", Layer::Flag), ("cluster.bootstrap", "true", Layer::Flag)];
    let written = Written::new()
        .with("super_nodes = [\"127.0.0.1:7500\"]", "")
        .with("secret_file = \"secret\"", "");
    let config = written.load(&founder).unwrap();
    assert!(config.cache.is_none() && config.cluster.bootstrap);
    assert!(written.load(&founder[..1]).unwrap_err()[0].contains("cluster.super_nodes is missing"));
    let node = Written::new().with("insecure = true", "insecure = true\nbootstrap = true");
    assert!(node.faults()[0].contains("super-nodes found clusters"), "{:?}", node.faults());
    let misled = [founder[0], ("edge.listen", "127.0.0.1:1", Layer::Flag)];
    let faults = Written::new().load(&misled).unwrap_err();
    assert!(faults[0].starts_with("--edge-listen has no use here"), "{faults:?}");
}

#[test]
fn listening_everywhere_needs_an_address_to_tell() {
    let everywhere = Written::new().with("127.0.0.1:7400", "0.0.0.0:7400");
    let faults = everywhere.faults();
    assert!(faults[0].starts_with("node.advertise is missing"), "{faults:?}");
    let told = [("node.advertise", "[fd00::7]", Layer::Variable)];
    let config = everywhere.load(&told).unwrap();
    assert_eq!(config.address(config.cluster.listen), "[fd00::7]:7400");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let errors = Config::load(Some(Path::new("/none/shoal.toml")), Settings::default());
    let text = errors.unwrap_err().to_string();
    assert!(text.contains("/none/shoal.toml") && text.contains("No such file"), "{text}");
}

#[test]
fn a_small_store_has_a_small_memory_unless_told_otherwise() {
    let small = Written::new()
        .with("budget = \"1GiB\"", "budget = \"20MiB\"")
        .with("memory = \"64MiB\"", "");
    assert_eq!(small.load(&[]).unwrap().cache.unwrap().store.memory_bytes, 20 << 20);
}

#[test]
fn a_budget_beyond_the_disk_is_a_warning() {
    let huge = Written::new().with("budget = \"1GiB\"", "budget = \"1000TiB\"");
    let warnings = huge.load(&[]).unwrap().warnings;
    assert!(warnings[0].contains("store.budget is 1000 TiB"), "{warnings:?}");
}

#[test]
fn tokens_are_hashes_with_scopes() {
    let written = Written::new();
    let secret = "0123456789abcdef0123456789abcdef";
    fs::write(written.file().with_file_name("token"), format!("{secret}\n")).unwrap();
    let tables = "[[admin.tokens]]\nname = \"ci\"\nfile = \"token\"\n\
                  scopes = [\"purge:site=docs\", \"read\"]\n[[admin.tokens]]\nname = \"hash\"\n\
                  sha256 = \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n\
                  scopes = [\"*\"]\n[[site]]";
    let config = written.with("[[site]]", tables).load(&[]).unwrap();
    let tokens = config.admin.tokens;
    assert_eq!(tokens.caller(secret.as_bytes()).unwrap().name(), "ci");
    assert_eq!(tokens.caller(b"abc").unwrap().name(), "hash");
    assert!(Written::new().load(&[]).unwrap().admin.tokens.is_empty());
}

#[test]
fn faults_of_tokens_are_told_without_their_secrets() {
    let table = [
        ("name = \"a\"\nscopes = [\"*\"]", "\"a\" has neither sha256 and file"),
        ("name = \"a\"\nsha256 = \"s3cret\"\nscopes = [\"*\"]", "admin.tokens.sha256 is no hash"),
        ("name = \"a\"\nfile = \"none\"\nscopes = [\"*\"]", "a readable file"),
        ("name = \"a\"\nfile = \"shoal.toml\"\nscopes = [\"*\"]", "one word of 32 to 512 bytes"),
        ("name = \"a\"\nfiel = \"x\"\nscopes = [\"*\"]", "did you mean admin.tokens.file?"),
        ("name = \"a\"\nscopes = \"*\"", "admin.tokens.scopes is"),
    ];
    for (token, expected) in table {
        let tables = format!("[[admin.tokens]]\n{token}\n[[site]]");
        let faults = Written::new().with("[[site]]", &tables).faults();
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected}\n{faults:#?}");
        assert!(!faults.iter().any(|fault| fault.contains("s3cret")), "{faults:#?}");
    }
    let hash = "0".repeat(64);
    let of = |scope: &str| {
        let token = format!("name = \"a\"\nsha256 = \"{hash}\"\nscopes = [{scope:?}]\n");
        Written::new().with("[[site]]", &format!("[[admin.tokens]]\n{token}[[site]]"))
    };
    assert!(of("purg").faults()[0].contains("admin.tokens.scopes has \"purg\"; did you mean"));
    let twice = of("read");
    let table =
        format!("[[admin.tokens]]\nname = \"a\"\nsha256 = \"{hash}\"\nscopes = []\n[[site]]");
    assert!(twice.with("[[site]]", &table).faults()[0].contains("a name of its own"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    /// Any file at all, and a valid one with bytes changed: read, or refused with every problem
    /// named, and never a panic.
    #[test]
    fn arbitrary_files_are_refused_with_a_reason(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        changes in proptest::collection::vec(
            (proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()),
            0..4,
        ),
    ) {
        let written = Written::new();
        let file = written.file();
        let mut changed = written.text.clone().into_bytes();
        for (at, value) in changes {
            let at = at.index(changed.len());
            changed[at] = value;
        }
        for text in [bytes, changed] {
            fs::write(&file, &text).unwrap();
            if let Err(problems) = Config::load(Some(&file), Settings::default()) {
                proptest::prop_assert!(!problems.to_string().is_empty());
            }
        }
    }
}
