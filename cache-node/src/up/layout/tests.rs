//! The data directory of a local cluster, made and met again.

use super::super::UpOptions;
use super::*;
use crate::config::{Config, Settings};
use crate::membership::ConfiguredRole;

fn options(folder: &Path) -> UpOptions {
    UpOptions { data_dir: folder.to_owned(), ..UpOptions::default() }
}

fn write(folder: &Path, options: &UpOptions) -> Plan {
    let record = inspect(folder).unwrap();
    let plan = Plan::new(options, record.as_ref()).unwrap();
    let layout = match record {
        Some(record) => Layout::open(folder, record).unwrap(),
        None => Layout::create(folder, &plan).unwrap(),
    };
    layout.write(&plan).unwrap();
    plan
}

#[test]
fn members_can_read_what_is_written_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let asked = UpOptions {
        store_budget: Some("1GiB".into()),
        unknown_host: Some(404),
        first_byte_timeout: Some(std::time::Duration::from_millis(1500)),
        ..options(folder.path())
    };
    let plan = write(folder.path(), &asked);
    for member in plan.members() {
        let file = folder.path().join(&member.name).join("config.toml");
        let config = Config::load(Some(&file), Settings::default()).unwrap();
        assert_eq!(config.node.name, member.name);
        assert_eq!(config.cluster.listen, member.cluster);
        assert_eq!(config.cluster.bootstrap, member.name == "super-0");
        assert_eq!(config.cluster.super_nodes.len(), 3);
        assert!(config.cluster.tls.is_some());
        assert_eq!(config.cache.is_some(), member.role.caches());
        if let Some(cache) = config.cache {
            assert_eq!(Some(cache.edge.listen), member.edge);
            assert_eq!(cache.edge.unknown_host.as_u16(), 404);
            assert_eq!(cache.store.budget_bytes, 1 << 30);
            assert_eq!(cache.sites[0].name, "default");
        }
    }
}

#[test]
fn nodes_that_choose_find_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let asked = UpOptions {
        auto: Some(4),
        super_nodes_wanted: Some("1".into()),
        replace_after: Some("20s".into()),
        ..options(folder.path())
    };
    let plan = write(folder.path(), &asked);
    for member in plan.members() {
        let file = folder.path().join(&member.name).join("config.toml");
        let config = Config::load(Some(&file), Settings::default()).unwrap();
        assert_eq!(config.node.role, ConfiguredRole::Auto);
        assert_eq!(config.cluster.bootstrap, member.name == "node-0");
        assert_eq!(config.cluster.super_nodes.len(), 4);
        assert!(config.cache.is_some());
        let selection = config.cluster.selection;
        assert_eq!((selection.voters, selection.replace_after_ms), (1, 20_000));
    }
    assert_eq!(write(folder.path(), &options(folder.path())).nodes.len(), 4, "as it was");
}

#[test]
fn a_cluster_keeps_its_id_and_its_secret() {
    let folder = tempfile::tempdir().unwrap();
    let kept = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    write(folder.path(), &options(folder.path()));
    let id = inspect(folder.path()).unwrap().unwrap().cluster_id;
    let (secret, ca) = (kept("secret"), kept("ca/ca.pem"));
    let grown = UpOptions { nodes: Some(4), ..options(folder.path()) };
    write(folder.path(), &grown);
    let record = inspect(folder.path()).unwrap().unwrap();
    assert_eq!((record.cluster_id, record.nodes), (id, 4));
    assert_eq!((kept("secret"), kept("ca/ca.pem")), (secret, ca));
}

#[test]
fn insecure_clusters_have_no_certificates() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &UpOptions { insecure: true, ..options(folder.path()) });
    assert!(!folder.path().join("ca").exists());
    let file = folder.path().join("node-0/config.toml");
    let config = Config::load(Some(&file), Settings::default()).unwrap();
    assert!(config.cluster.tls.is_none());
}

#[test]
fn somebody_elses_folder_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.tex"), "years of work").unwrap();
    let refused = inspect(folder.path()).unwrap_err();
    assert!(refused.is_usage() && refused.to_string().contains("thesis.tex"), "{refused}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn strange_records_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let newer = r#"{"format":2,"cluster_id":"a","base_port":1,"super_nodes":1,"nodes":1}"#;
    for strange in ["", "{}", newer] {
        fs::write(folder.path().join(RECORD_FILE), strange).unwrap();
        let refused = inspect(folder.path()).unwrap_err().to_string();
        assert!(refused.contains(RECORD_FILE) && refused.contains("--data-dir"), "{refused}");
    }
}

#[test]
fn leftovers_of_a_broken_start_are_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("lock"), "").unwrap();
    fs::write(folder.path().join("cluster.json.tmp"), "{").unwrap();
    assert_eq!(inspect(folder.path()).unwrap(), None);
    assert_eq!(inspect(&folder.path().join("none")).unwrap(), None);
}

#[test]
fn a_cluster_that_is_up_is_found_by_its_lock() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan::new(&options(folder.path()), None).unwrap();
    let _up = Layout::create(folder.path(), &plan).unwrap();
    let record = inspect(folder.path()).unwrap().unwrap();
    let refused = Layout::open(folder.path(), record).unwrap_err().to_string();
    assert!(refused.contains("in use by another process"), "{refused}");
}
