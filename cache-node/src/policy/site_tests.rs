//! Sites: what is accepted, what is refused and how, which site a host finds.

use super::*;

fn config(name: &str, hosts: &[&str], origin: &str) -> SiteConfig {
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let keys = serde_json::json!({ "name": name, "hosts": hosts, "origin": origin });
    serde_json::from_value(keys).unwrap()
}

/// A site with more keys.
fn with(more: &str) -> Result<Arc<Site>, Vec<SiteError>> {
    let text = format!("name = \"a\"\nhosts = [\"a\"]\norigin = \"http://o\"\n{more}");
    Sites::new(vec![toml::from_str(&text).unwrap()]).map(|sites| sites.get("a").unwrap())
}

#[test]
fn the_first_path_rule_that_fits_counts() {
    let site = with(
        "bypass = true\n[ttl]\ndefault_s = 5\n\
         [[path]]\nprefix = \"/static/\"\nbypass = false\n\
         [[path]]\nglob = \"*.js\"\nbypass = false\nttl = { forced_s = 60 }\n\
         key = { query = \"none\" }\n",
    )
    .unwrap();
    let at = |target: &str| {
        let site = Arc::clone(&site).at(target);
        (site.bypass, site.rules.default_ttl_s, site.rules.forced_ttl_s)
    };
    assert_eq!(at("/x"), (true, Some(5), None));
    assert_eq!(at("/static/x.js?a=1"), (false, Some(5), None));
    assert_eq!(at("/x.js?a=1"), (false, None, Some(60)));
    assert_eq!(at("/x?a=.js"), (true, Some(5), None), "a query is no path");
    assert_eq!(at("/%73tatic/x"), (false, Some(5), None), "one spelling");
    assert_eq!(Arc::clone(&site).at("/x.js").key.target("/x.js?a=1"), "/x.js");
    assert_eq!(site.key.target("/x?a=1"), "/x?a=1");
}

#[test]
fn what_a_path_rule_does_not_say_is_as_for_the_site() {
    let site = with(
        "parts = \"all\"\nset_cookie = \"strip\"\nmethods = [\"GET\"]\n\
         request_headers = { remove = [\"x-a\"] }\n\
         [[path]]\nprefix = \"/a/\"\nttl = { default_s = 60 }\n",
    )
    .unwrap();
    let there = Arc::clone(&site).at("/a/b");
    assert_eq!(there.rules.default_ttl_s, Some(60));
    assert_eq!((there.parts, there.rules.set_cookie), (InParts::All, SetCookie::Strip));
    assert_eq!(there.request_headers, site.request_headers);
    assert!(there.allows(&Method::GET) && !there.allows(&Method::POST));
}

#[test]
fn wrong_choices_name_their_key() {
    let field = |more: &str| {
        let errors = with(more).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(!errors[0].remedy.is_empty());
        errors[0].field
    };
    assert_eq!(field("methods = [\"CONNECT\"]"), "methods");
    assert_eq!(field("tags = [\"a b\"]"), "tags");
    assert_eq!(field("more_origins = [\"ftp://x\"]"), "more_origins");
    assert_eq!(field("ttl = { default_s = 999999999999 }"), "ttl");
    assert_eq!(field("ttl = { negative_s = { \"200\" = 1 } }"), "ttl");
    assert_eq!(field("key = { headers = [\"a b\"] }"), "key");
    assert_eq!(field("request_headers = { set = { Host = \"x\" } }"), "request_headers");
    assert_eq!(field("response_headers = { remove = [\"content-length\"] }"), "response_headers");
    assert_eq!(field("health = { failures = 0 }"), "health");
    assert_eq!(field("path = [{ bypass = true }]"), "path");
    let inner = "path = [{ prefix = \"/\", key = { ignore = [\"a=b\"] } }]";
    assert_eq!(field(inner), "path");
}

fn found(sites: &Sites, host: &str) -> Option<String> {
    sites.find(host).map(|site| site.name().to_owned())
}

#[test]
fn a_site_needs_little() {
    let text = "name = \"docs\"\nhosts = [\"docs.test\"]\norigin = \"https://origin.test\"\n";
    let config: SiteConfig = toml::from_str(text).unwrap();
    let sites = Sites::new(vec![config]).unwrap();
    let site = sites.get("docs").unwrap();
    assert_eq!(site.origin(), "https://origin.test");
    assert_eq!(site.first_byte_timeout, Duration::from_secs(10));
    assert_eq!(site.between_bytes_timeout, Duration::from_secs(30));
    assert_eq!(site.host_header(), HostHeader::Origin);
}

#[test]
fn unknown_fields_are_refused() {
    let text = "name = \"a\"\nhosts = [\"a\"]\norigin = \"http://o\"\nttl = 5\n";
    let refused = toml::from_str::<SiteConfig>(text).unwrap_err().to_string();
    assert!(refused.contains("ttl"), "{refused}");
}

#[test]
fn the_most_exact_host_wins_whatever_port_and_case() {
    let sites = Sites::new(vec![
        config("exact", &["www.example.com"], "http://o1"),
        config("below", &["*.example.com"], "http://o2"),
        config("deep", &["*.eu.example.com"], "http://o3"),
        config("v6", &["[::1]"], "http://o4"),
    ])
    .unwrap();
    for (host, site) in [
        ("www.example.com", Some("exact")),
        ("WWW.Example.COM:8080", Some("exact")),
        ("www.example.com.", Some("exact")),
        ("www.example.com.:80", Some("exact")),
        ("img.example.com", Some("below")),
        ("a.b.example.com", Some("below")),
        ("a.eu.example.com", Some("deep")),
        ("eu.example.com", Some("below")),
        ("example.com", None),
        ("badexample.com", None),
        ("[::1]:8080", Some("v6")),
        ("[::2]", None),
        ("", None),
    ] {
        assert_eq!(found(&sites, host).as_deref(), site, "{host}");
    }
    let sites = Sites::new(vec![config("all", &["*"], "http://o")]).unwrap();
    assert_eq!(found(&sites, "anything:1").as_deref(), Some("all"));
}

#[test]
fn all_faults_are_reported_at_once_by_site_and_field() {
    let refused = Sites::new(vec![
        SiteConfig { first_byte_timeout_ms: 0, ..config("a b", &["a:80"], "ftp://o") },
        SiteConfig { max_object_bytes: u64::MAX, ..config("two", &[], "http://o/path") },
        config("two", &["*"], "http://user@o"),
        config("four", &["x.test", "X.test"], "http://o:0"),
    ])
    .unwrap_err();
    let fields: Vec<_> = refused.iter().map(|e| (e.site.as_str(), e.field)).collect();
    assert_eq!(
        fields,
        [
            ("a b", "name"),
            ("a b", "hosts"),
            ("a b", "first_byte_timeout_ms"),
            ("a b", "origin"),
            ("two", "hosts"),
            ("two", "max_object_bytes"),
            ("two", "origin"),
            ("two", "name"),
            ("two", "origin"),
            ("four", "origin"),
        ]
    );
    assert_eq!(
        refused[3].to_string(),
        "site \"a b\": origin = \"ftp://o\": write http:// or https://, a host and, where \
         needed, a port"
    );
}

#[test]
fn a_host_belongs_to_one_site() {
    let refused = Sites::new(vec![
        config("one", &["x.test", "*.x.test", "*"], "http://o"),
        config("two", &["X.test", "*.x.TEST", "*"], "http://o"),
    ])
    .unwrap_err();
    assert_eq!(refused.len(), 3, "{refused:?}");
    assert!(refused.iter().all(|e| e.site == "two" && e.field == "hosts"));
}

#[test]
fn origins_are_canonical() {
    for (url, canonical) in [
        ("http://Origin.Test:80/", "http://origin.test"),
        ("HTTPS://origin.test:443", "https://origin.test"),
        ("https://origin.test:8443", "https://origin.test:8443"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("http://10.0.0.1", "http://10.0.0.1"),
    ] {
        let sites = Sites::new(vec![config("a", &["a"], url)]).unwrap();
        assert_eq!(sites.get("a").unwrap().origin(), canonical);
    }
    for url in ["origin", "http://", "http://a b", "http://a:", "http://a:99999", "http://a?b"] {
        assert!(Sites::new(vec![config("a", &["a"], url)]).is_err(), "{url}");
    }
}

#[test]
fn the_origin_sees_its_own_host_or_the_clients() {
    let own = config("own", &["a"], "http://origin.test:81");
    let asked =
        SiteConfig { host_header: HostHeader::Client, ..config("asked", &["b"], "http://o") };
    let sites = Sites::new(vec![own, asked]).unwrap();
    assert_eq!(sites.get("own").unwrap().host_for("A:8080"), "origin.test:81");
    assert_eq!(sites.get("asked").unwrap().host_for("B:8080"), "b:8080");
}
