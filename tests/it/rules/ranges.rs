//! Parts of what is stored (RFC 9110 §14, §13.1.5; RFC 9111 §3.3, §3.4). More: `crate::hits`.

use super::{Stage, fresh, parameter};
use crate::harness::{Reply, http_date};
use crate::over::BOTH;

const BODY: &str = "01234567890A";
const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn text() -> Reply {
    let reply = fresh(BODY).header("ETag", "\"v1\"").header("Last-Modified", MODIFIED).header("X-Own", "kept");
    reply.header("Content-Type", "text/plain").header("Age", "5")
}

/// RFC 9110 §14.1.2, §15.3.7, §15.5.17: from a whole that is stored, whatever satisfiable part is asked for.
#[tokio::test]
async fn rule_21_parts_of_a_stored_whole() {
    let stage = Stage::new().await;
    for over in BOTH {
        let mut scene = stage.scene(over, [text(), Reply::new(500)]).await;
        scene.get().await;
        for (range, status, content_range, body) in [
            ("bytes=0-1", 206, Some("bytes 0-1/12"), "01"),
            ("bytes=1-", 206, Some("bytes 1-11/12"), "1234567890A"),
            ("bytes=-1", 206, Some("bytes 11-11/12"), "A"),
            ("BYTES=0-0", 206, Some("bytes 0-0/12"), "0"),
            ("bytes=0-99", 206, Some("bytes 0-11/12"), BODY),
            ("bytes=-99", 206, Some("bytes 0-11/12"), BODY),
            ("bytes=11-11, 90-91", 206, Some("bytes 11-11/12"), "A"),
            ("bytes=12-", 416, Some("bytes */12"), ""),
            ("bytes=12-20, 30-", 416, Some("bytes */12"), ""),
            ("bytes=-0", 416, Some("bytes */12"), ""),
            // What is none is ignored.
            ("bytes=1-0", 200, None, BODY),
            ("bytes=a-b", 200, None, BODY),
            ("bytes=", 200, None, BODY),
            ("chars=0-1", 200, None, BODY),
        ] {
            let part = scene.get_with(&[("Range", range)]).await;
            let case = format!("{range} over {over:?}: {part:?}");
            assert_eq!(
                (part.status, part.header("Content-Range"), part.text()),
                (status, content_range, body),
                "{case}"
            );
            assert_eq!(part.headers.all("Content-Length"), [body.len().to_string()], "{case}");
            assert!(part.is_hit(), "{case}");
            if status != 416 {
                // §15.3.7.1: with the stored fields.
                assert_eq!((part.header("ETag"), part.header("X-Own")), (Some("\"v1\""), Some("kept")), "{case}");
                assert_eq!(part.header("Last-Modified"), Some(MODIFIED), "{case}");
                assert_eq!(part.header("Content-Type"), Some("text/plain"), "{case}");
                assert!(part.age() >= Some(5), "{case}");
            }
        }
        // §14.2: Range is for GET.
        let head = scene.send("HEAD", &[("Range", "bytes=0-1")]).await;
        assert_eq!((head.status, head.header("Content-Length"), head.header("Content-Range")), (200, Some("12"), None));
        assert_eq!(scene.seen().len(), 1, "{over:?}");
    }
}

/// RFC 9110 §14.6: several parts.
#[tokio::test]
async fn rule_21_several_parts() {
    let stage = Stage::new().await;
    for over in BOTH {
        let mut scene = stage.scene(over, [text()]).await;
        scene.get().await;
        let parts = scene.get_with(&[("Range", "bytes=0-1, 5-5,-1")]).await;
        assert_eq!(parts.status, 206, "{over:?}: {parts:?}");
        let kind = parts.header("Content-Type").unwrap_or_default();
        let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap_or_else(|| panic!("{parts:?}"));
        let mut sections = parts.text().split(&format!("--{boundary}")).collect::<Vec<_>>();
        assert_eq!(sections.pop().map(str::trim), Some("--"), "{parts:?}");
        assert_eq!(sections.remove(0).trim(), "", "{parts:?}");
        for (section, (range, body)) in sections.iter().zip([("0-1", "01"), ("5-5", "5"), ("11-11", "A")]) {
            let expected = format!("Content-Type: text/plain\r\nContent-Range: bytes {range}/12\r\n\r\n{body}");
            assert_eq!(section.trim(), expected, "{over:?}");
        }
        assert_eq!(sections.len(), 3, "{over:?}: {parts:?}");
        assert_eq!(parts.headers.all("Content-Length"), [parts.body.len().to_string()], "{over:?}");
        assert_eq!((parts.header("Content-Range"), parts.header("ETag")), (None, Some("\"v1\"")), "{over:?}");
    }
}

/// RFC 9110 §13.1.5: If-Range has the whole sent where its validator is not the stored one, or is weak.
#[tokio::test]
async fn rule_21_if_range() {
    let stage = Stage::new().await;
    let recent = http_date(0);
    for over in BOTH {
        for (etag, modified, if_range, is_part) in [
            ("\"v1\"", MODIFIED, "\"v1\"", true),
            ("\"v1\"", MODIFIED, "\"v2\"", false),
            ("\"v1\"", MODIFIED, "W/\"v1\"", false),
            ("W/\"v1\"", MODIFIED, "W/\"v1\"", false),
            ("W/\"v1\"", MODIFIED, "\"v1\"", false),
            ("\"v1\"", MODIFIED, MODIFIED, true),
            ("\"v1\"", MODIFIED, "Sunday, 06-Nov-94 08:49:37 GMT", true),
            ("\"v1\"", MODIFIED, "Sun, 06 Nov 1994 08:49:38 GMT", false),
            ("\"v1\"", MODIFIED, "Sun, 06 Nov 1994 08:49:36 GMT", false),
            ("\"v1\"", MODIFIED, "v1", false),
            ("\"v1\"", MODIFIED, "*", false),
            // §8.8.2.2: of the same second as Date, a Last-Modified is weak.
            ("\"v1\"", &recent, &recent, false),
        ] {
            let reply = fresh(BODY).header("ETag", etag).header("Last-Modified", modified).header("Date", &recent);
            let mut scene = stage.scene(over, [reply]).await;
            scene.get().await;
            let response = scene.get_with(&[("Range", "bytes=0-1"), ("If-Range", if_range)]).await;
            let expected = if is_part { (206, "01") } else { (200, BODY) };
            assert_eq!(
                (response.status, response.text()),
                expected,
                "{if_range} of {etag} over {over:?}: {response:?}"
            );
            assert!(response.is_hit(), "{over:?}: {response:?}");
        }
        // §14.2: without Range it says nothing.
        let mut scene = stage.scene(over, [text()]).await;
        scene.get().await;
        assert_eq!(scene.get_with(&[("If-Range", "\"v1\"")]).await.status, 200, "{over:?}");
    }
}

/// RFC 9111 §3.3, §3.4: a 206 is not stored, so parts are never put together, with a strong validator or without.
#[tokio::test]
async fn rule_21_parts_from_the_origin_are_not_put_together() {
    let stage = Stage::new().await;
    for over in BOTH {
        let part = |range: &str, body: &'static str| {
            let reply = Reply::new(206).body(body).cache_control("max-age=60").header("ETag", "\"v1\"");
            reply.header("Content-Range", format!("bytes {range}/12"))
        };
        // An origin that answers with parts, whatever it is asked.
        let mut scene = stage.scene(over, [part("0-5", "012345"), part("6-11", "67890A"), text()]).await;
        for (range, body) in [("bytes=0-5", "012345"), ("bytes=6-11", "67890A")] {
            let response = scene.get_with(&[("Range", range)]).await;
            assert_eq!((response.status, response.text()), (206, body), "{over:?}: {response:?}");
            assert_eq!(parameter(&response, "stored"), None, "{over:?}: {response:?}");
        }
        let whole = scene.get().await;
        assert_eq!((whole.status, whole.text(), whole.is_hit()), (200, BODY, false), "{over:?}: {whole:?}");
        assert_eq!(scene.seen().len(), 3, "{over:?}");
    }
}
