//! Informational responses: relayed to those who understand them, in order, and never stored.

use super::rig::*;

const HINTED: &str = "HTTP/1.1 100 Continue\r\n\r\n\
    HTTP/1.1 102 Processing\r\n\r\n\
    HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\
    HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nhi";
const RELAYED: &str = "HTTP/1.1 102 Processing\r\n\r\n\
    HTTP/1.1 103 Early Hints\r\nlink: </s.css>\r\n\r\n\
    HTTP/1.1 200 OK\r\n";

#[tokio::test]
async fn they_come_before_the_response_and_are_not_stored() {
    let rig = Rig::raw(HINTED, false).await;
    let miss = rig.get("/x", "").await;
    assert!(miss.text.starts_with(RELAYED), "{miss:?}");
    assert!(miss.text.ends_with("\r\n\r\nhi"), "{miss:?}");
    until(|| rig.edge.read_path.stored.lock().unwrap().len() == 1).await;
    let hit = rig.get("/x", "").await;
    assert_eq!((hit.status(), hit.body(), hit.header("link")), (200, "hi", None));
}

#[tokio::test]
async fn they_are_relayed_for_what_passes_too() {
    let rig = Rig::raw(HINTED, false).await;
    let post = rig.ask("POST / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert!(post.text.starts_with(RELAYED), "{post:?}");
}

#[tokio::test]
async fn clients_of_http_1_0_are_spared() {
    let rig = Rig::raw(HINTED, false).await;
    let answer = rig.ask("GET /x HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
    assert_eq!((answer.status(), answer.body()), (200, "hi"));
}

#[tokio::test]
async fn a_flood_of_them_is_bounded() {
    const ENDLESS: &str = "HTTP/1.1 103 Early Hints\r\n\r\n";
    let flood: &'static str = Box::leak(
        format!("{}HTTP/1.1 204 No Content\r\n\r\n", ENDLESS.repeat(10_000)).into_boxed_str(),
    );
    let rig = Rig::raw(flood, false).await;
    let answer = rig.get("/x", "").await;
    let relayed = answer.text.matches("103 Early Hints").count();
    assert!(answer.text.contains("204 No Content") || answer.text.contains("502 "), "{relayed}");
}
