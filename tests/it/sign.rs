//! `foreland sign`: what it prints, and how it ends.

use std::fs;
use std::path::PathBuf;

use super::harness::Edge;

/// A configuration with a key of each symmetric format.
struct Keys(PathBuf);

impl Keys {
    fn new(name: &str) -> Keys {
        let folder = std::env::temp_dir().join(format!("foreland-sign-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("secret"), "correct horse battery staple\n").expect("a file");
        fs::write(folder.join("hex"), "aa11bb22\n").expect("a file");
        let yaml = "listeners: [{ address: \"127.0.0.1:8080\" }]\n\
             keys:\n  \
               media: {format: foreland, secrets: [file:secret]}\n  \
               nginx: {format: secure-link, secrets: [file:secret]}\n  \
               akamai: {format: akamai, secrets: [file:hex]}\n  \
               cloudflare: {format: cloudflare, secrets: [file:secret], lifetime: 3h}\n  \
               jwt: {format: jwt, secrets: [file:secret]}\n\
             origins:\n  o:\n    servers: [\"127.0.0.1:1\"]\n\
             sites:\n  - hosts: [\"*\"]\n    origin: o\n";
        fs::write(folder.join("foreland.yaml"), yaml).expect("a file");
        Keys(folder)
    }

    async fn sign(&self, key: &str, args: &[&str]) -> (Option<i32>, String, String) {
        let file = self.0.join("foreland.yaml");
        let file = file.to_str().expect("a path");
        let (status, out, err) = Edge::command(&[&["sign", "-c", file, "--key", key], args].concat()).await;
        (status.code(), out, err)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn the_signed_url_alone_is_printed() {
    let keys = Keys::new("printed");
    let end = ["--expires", "1767290400"];
    for (args, expected) in [
        (
            &["https://cdn.example/video/a.mp4"][..],
            "https://cdn.example/video/a.mp4?token=exp=1767290400~mac=TRDrAQVHE2ghKhUu5QgmLQ\n",
        ),
        (
            &["https://CDN.example:443/video/abc/master.m3u8?x", "--prefix", "--in", "path"],
            "https://CDN.example:443/token=exp=1767290400~p=2~mac=gRUKX_bQveqpSsrhiNHjig/video/abc/master.m3u8?x\n",
        ),
        (
            &["https://cdn.example/video/abc/1/a.ts", "--prefix=/video/abc/", "--in", "cookie"],
            "token=exp=1767290400~p=2~mac=gRUKX_bQveqpSsrhiNHjig\n",
        ),
        (
            &[
                "https://cdn.example/a%2fb/%41?h=2&x=3&w=%61%2f",
                "--not-before",
                "1767286800",
                "--ip",
                "192.0.2.0/24",
                "--method",
                "GET",
                "--method",
                "POST",
                "--query",
                "w,h",
                "--id",
                "order-17",
            ],
            "https://cdn.example/a%2fb/%41?h=2&x=3&w=%61%2f&token=exp=1767290400~nbf=1767286800~ip=192.0.2.0_24~m=GET,POST\
             ~q=w,h~id=order-17~mac=_aKJ7Z8D7cjPoUca0OtEng\n",
        ),
    ] {
        let said = keys.sign("media", &[&end[..], args].concat()).await;
        assert_eq!(said, (Some(0), expected.to_owned(), String::new()), "{args:?}");
    }
}

#[tokio::test]
async fn every_symmetric_format_signs() {
    let keys = Keys::new("formats");
    for (key, args, begin) in [
        ("nginx", &["--ip", "127.0.0.1"][..], "https://cdn.example/a/b?expires="),
        ("akamai", &["--prefix"], "https://cdn.example/a/b?hdnts=exp="),
        ("cloudflare", &[], "https://cdn.example/a/b?verify="),
        ("jwt", &["--prefix", "--in", "path"], "https://cdn.example/URISigningPackage=eyJ"),
    ] {
        let (code, out, err) = keys.sign(key, &[&["--expires", "1h", "https://cdn.example/a/b"], args].concat()).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{key}");
        assert!(out.starts_with(begin) && out.ends_with('\n') && out.lines().count() == 1, "{key}: {out}");
    }
}

#[tokio::test]
async fn mistakes_and_refusals() {
    let keys = Keys::new("mistakes");
    for (key, args, code, says) in [
        ("medai", &["--expires", "1h", "https://a/"][..], 2, "media"),
        ("media", &["https://a/"], 2, "--expires"),
        ("media", &["--expires", "soon", "https://a/"], 2, "with a unit"),
        ("media", &["--expires", "1h", "/a"], 2, "http://"),
        ("media", &["--expires", "1h", "https://a/#b"], 2, "fragment"),
        ("media", &["--expires", "1h", "--prefix=/b/", "https://a/a"], 2, "--prefix"),
        ("media", &["--expires", "1h", "--query", "a b", "https://a/a"], 2, "--query"),
        ("nginx", &["--expires", "1h", "https://a/a"], 2, "--ip"),
        ("nginx", &["--expires", "1h", "--ip", "::1", "--id", "x", "https://a/a"], 2, "--id"),
        ("akamai", &["--expires", "1h", "--method", "PUT", "https://a/a"], 2, "--method"),
        ("cloudflare", &["--expires", "4h", "https://a/a"], 2, "lifetime"),
        ("jwt", &["--expires", "1h", "--ip", "::1", "https://a/a"], 2, "--ip"),
        ("media", &["--expires", "1h", "--prefix=/a/", "https://a/a/..%2fb"], 1, "outside of the prefix"),
    ] {
        let (found, out, err) = keys.sign(key, args).await;
        assert_eq!((found, out.as_str()), (Some(code), ""), "{key} {args:?}: {err}");
        assert!(err.contains(says), "{key} {args:?}: {err}");
    }
    let (status, out, err) = Edge::command(&["sign", "-c", "/nowhere.yaml", "--key", "k", "https://a/"]).await;
    assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{err}");
    let (status, out, _) = Edge::command(&["sign", "--help"]).await;
    assert!(status.success() && out.contains("--prefix --in path"), "{out}");
}
