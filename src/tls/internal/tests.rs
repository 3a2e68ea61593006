use super::*;
use std::sync::Barrier;
use std::thread;
use std::time::UNIX_EPOCH;

use tempfile::TempDir;

const START: u64 = 1_900_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn hosts(hosts: &[&str]) -> Vec<String> {
    hosts.iter().map(|&host| host.to_owned()).collect()
}

fn state() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn leaf(certified: &CertifiedKey) -> Leaf {
    Leaf::read(&certified.cert[0]).unwrap()
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_restart_gives_the_same_root_and_the_same_leaf() {
    let state = state();
    let first = ensure(state.path(), &hosts(&["localhost"]), at(START)).unwrap();
    let root = fs::read(root_certificate(state.path())).unwrap();
    let second = ensure(state.path(), &hosts(&["localhost"]), at(START + 60)).unwrap();
    assert_eq!(first.cert, second.cert);
    assert_eq!(root, fs::read(root_certificate(state.path())).unwrap());
}

#[test]
fn the_leaf_names_what_was_asked_for() {
    let state = state();
    let asked = hosts(&["localhost", "*.edge.test", "127.0.0.1", "0:0::1"]);
    let certified = ensure(state.path(), &asked, at(START)).unwrap();
    let mut names = leaf(&certified).names;
    names.sort();
    assert_eq!(names, ["*.edge.test", "127.0.0.1", "::1", "localhost"]);
}

#[test]
fn other_hosts_get_another_leaf_of_the_same_root() {
    let state = state();
    let one = ensure(state.path(), &hosts(&["a.test"]), at(START)).unwrap();
    let two = ensure(state.path(), &hosts(&["a.test", "b.test"]), at(START)).unwrap();
    assert_ne!(one.cert, two.cert);
    assert_eq!(leaf(&one).issuer, leaf(&two).issuer);
}

#[test]
fn a_leaf_is_kept_while_a_third_of_its_life_remains_and_not_a_second_longer() {
    let state = state();
    let asked = hosts(&["localhost"]);
    let first = ensure(state.path(), &asked, at(START)).unwrap();
    let facts = leaf(&first);
    let third = (facts.not_after - facts.not_before) / 3;
    let edge = u64::try_from(facts.not_after - third).unwrap();
    assert_eq!(ensure(state.path(), &asked, at(edge)).unwrap().cert, first.cert);
    assert_ne!(ensure(state.path(), &asked, at(edge + 1)).unwrap().cert, first.cert);
}

#[test]
fn a_leaf_from_the_future_is_issued_again() {
    let state = state();
    let asked = hosts(&["localhost"]);
    let first = ensure(state.path(), &asked, at(START)).unwrap();
    let before = u64::try_from(leaf(&first).not_before).unwrap();
    assert_eq!(ensure(state.path(), &asked, at(before)).unwrap().cert, first.cert);
    assert_ne!(ensure(state.path(), &asked, at(before - 1)).unwrap().cert, first.cert);
}

#[test]
fn a_leaf_never_outlives_its_root() {
    let state = state();
    ensure(state.path(), &hosts(&["a.test"]), at(START)).unwrap();
    let root = fs::read(root_certificate(state.path())).unwrap();
    let root = Leaf::read(&files::chain(Path::new("root"), &root).unwrap()[0]).unwrap();
    let end = u64::try_from(root.not_after).unwrap();
    let late = ensure(state.path(), &hosts(&["b.test"]), at(end - 60)).unwrap();
    assert_eq!(leaf(&late).not_after, root.not_after);
    let error = ensure(state.path(), &hosts(&["b.test"]), at(end + 1)).unwrap_err();
    assert!(matches!(error, Error::RootExpired { .. }), "{error}");
}

#[test]
fn only_the_owner_may_read_what_is_kept() {
    let state = state();
    let dir = state.path().join("deep/state");
    ensure(&dir, &hosts(&["localhost"]), at(START)).unwrap();
    assert_eq!(mode(&dir), 0o700);
    assert_eq!((mode(&dir.join("ca")), mode(&dir.join("certs"))), (0o700, 0o700));
    assert_eq!((mode(&root_key(&dir)), mode(&root_certificate(&dir))), (0o600, 0o600));
    for entry in fs::read_dir(dir.join("certs")).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[test]
fn many_at_once_agree_on_one_root() {
    let state = state();
    let barrier = Barrier::new(8);
    let issuers: BTreeSet<_> = thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    leaf(&ensure(state.path(), &hosts(&["localhost"]), at(START)).unwrap()).issuer
                })
            })
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert_eq!(issuers.len(), 1);
    let left: Vec<_> =
        fs::read_dir(state.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "drafts were left behind: {left:?}");
}

#[test]
fn a_damaged_root_is_an_error_and_stays_as_it_is() {
    let state = state();
    ensure(state.path(), &hosts(&["localhost"]), at(START)).unwrap();
    for file in [root_certificate(state.path()), root_key(state.path())] {
        let good = fs::read(&file).unwrap();
        fs::write(&file, "damaged").unwrap();
        let error = ensure(state.path(), &hosts(&["localhost"]), at(START)).unwrap_err();
        assert!(error.to_string().contains(&*file.to_string_lossy()), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"damaged");
        fs::write(&file, good).unwrap();
    }
}

#[test]
fn half_an_authority_is_an_error() {
    let state = state();
    ensure(state.path(), &hosts(&["localhost"]), at(START)).unwrap();
    fs::remove_file(root_key(state.path())).unwrap();
    let error = ensure(state.path(), &hosts(&["localhost"]), at(START)).unwrap_err();
    let Error::IncompleteAuthority { missing } = &error else { panic!("{error}") };
    assert_eq!(*missing, root_key(state.path()));
    assert!(!root_key(state.path()).exists());
}

#[test]
fn a_root_key_that_others_may_read_is_refused() {
    let state = state();
    ensure(state.path(), &hosts(&["localhost"]), at(START)).unwrap();
    fs::set_permissions(root_key(state.path()), fs::Permissions::from_mode(0o640)).unwrap();
    let error = ensure(state.path(), &hosts(&["localhost"]), at(START)).unwrap_err();
    assert!(matches!(error, Error::TooOpen { mode: 0o640, .. }), "{error}");
}

#[test]
fn a_root_key_of_another_root_is_refused() {
    let (one, two) = (state(), state());
    ensure(one.path(), &hosts(&["localhost"]), at(START)).unwrap();
    ensure(two.path(), &hosts(&["localhost"]), at(START)).unwrap();
    fs::copy(root_key(two.path()), root_key(one.path())).unwrap();
    let error = ensure(one.path(), &hosts(&["localhost"]), at(START)).unwrap_err();
    assert!(matches!(error, Error::KeyMismatch { .. }), "{error}");
}

#[test]
fn a_damaged_leaf_is_an_error_that_says_what_to_do() {
    let state = state();
    let asked = hosts(&["localhost"]);
    ensure(state.path(), &asked, at(START)).unwrap();
    let file = state.path().join("certs").join(leaf_name(&asked));
    fs::write(&file, "damaged").unwrap();
    let error = ensure(state.path(), &asked, at(START)).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"damaged");
}

#[test]
fn a_new_root_issues_new_leaves() {
    let state = state();
    let asked = hosts(&["localhost"]);
    let first = ensure(state.path(), &asked, at(START)).unwrap();
    fs::remove_dir_all(state.path().join("ca")).unwrap();
    let second = ensure(state.path(), &asked, at(START)).unwrap();
    assert_ne!(leaf(&first).issuer, leaf(&second).issuer);
}

#[test]
fn no_hosts_no_certificate() {
    let state = state();
    let error = ensure(state.path(), &[], at(START)).unwrap_err();
    assert!(matches!(error, Error::NoHosts), "{error}");
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
}

#[test]
fn file_names_stay_inside_of_the_folder() {
    for host in ["../../etc/passwd", "*.a.test", "::1", "/", ""] {
        let name = leaf_name(&hosts(&[host]));
        assert!(!name.contains('/') && !name.starts_with('.'), "{name}");
    }
}
