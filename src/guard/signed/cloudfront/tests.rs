//! CloudFront's own examples, signatures made by OpenSSL, and what must be refused.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::config::model::PublicKeyKind;
use crate::guard::signed::keys::testing::{self, p256, p384, rsa};
use crate::guard::signed::testing::{Request, fuzz_cases};

/// A request for a URL, tokens and all.
fn asked(url: &str) -> Request {
    let (scheme, rest) = url.split_once("://").expect("a scheme");
    let (authority, target) = rest.split_at(rest.find('/').expect("a path"));
    Request { secure: scheme == "https", authority: authority.to_owned(), ..Request::target(target, None) }
}

fn verifier(keys: &[PublicKey]) -> CloudFront {
    CloudFront::new(keys, Duration::ZERO).expect("keys that can be used")
}

/// The examples of the CloudFront Developer Guide, in the editions that had the private key too ("Example Canned Policy",
/// "Example Custom Policy" 1 and 2). The policies have white space and a newline at their end.
mod documented {
    use super::*;

    const CANNED: &str = "http://d604721fxaaqy9.cloudfront.net/horizon.jpg?large=yes&license=yes&Expires=1258237200\
        &Signature=Nql641NHEUkUaXQHZINK1FZ~SYeUSoBJMxjdgqrzIdzV2gyEXPDNv0pYdWJkflDKJ3xIu7lbwRpSkG98NBlgPi4ZJpRRnVX4kXAJK6t\
        dNx6FucDB7OVqzcxkxHsGFd8VCG1BkC-Afh9~lOCMIYHIaiOB6~5jt9w2EOwi6sIIqrg_&Key-Pair-Id=PK123456789754";
    const CUSTOM_1: &str = "?Policy=eyAKICAgIlN0YXRlbWVudCI6IFt7IAogICAgICAiUmVzb3VyY2UiOiJodHRwOi8vZDYwNDcyMWZ4YWFxeTkuY2x\
        vdWRmcm9udC5uZXQvdHJhaW5pbmcvKiIsIAogICAgICAiQ29uZGl0aW9uIjp7IAogICAgICAgICAiSXBBZGRyZXNzIjp7IkFXUzpTb3VyY2VJcCI6I\
        jE0NS4xNjguMTQzLjAvMjQifSwgCiAgICAgICAgICJEYXRlTGVzc1RoYW4iOnsiQVdTOkVwb2NoVGltZSI6MTI1ODIzNzIwMH0gICAgICAKICAgICA\
        gfSAKICAgfV0gCn0K&Signature=cPFtRKvUfYNYmxek6ZNs6vgKEZP6G3Cb4cyVt~FjqbHOnMdxdT7eT6pYmhHYzuDsFH4Jpsctke2Ux6PCXcKxUcT\
        Im8SO4b29~1QvhMl-CIojki3Hd3~Unxjw7Cpo1qRjtvrimW0DPZBZYHFZtiZXsaPt87yBP9GWnTQoaVysMxQ_&Key-Pair-Id=PK123456789754";
    const CUSTOM_2: &str = "?Policy=eyAKICAgIlN0YXRlbWVudCI6IFt7IAogICAgICAiUmVzb3VyY2UiOiJodHRwOi8vKiIsIAogICAgICAiQ29uZGl\
        0aW9uIjp7IAogICAgICAgICAiSXBBZGRyZXNzIjp7IkFXUzpTb3VyY2VJcCI6IjIxNi45OC4zNS4xLzMyIn0sCiAgICAgICAgICJEYXRlR3JlYXRlc\
        lRoYW4iOnsiQVdTOkVwb2NoVGltZSI6MTI0MTA3Mzc5MH0sCiAgICAgICAgICJEYXRlTGVzc1RoYW4iOnsiQVdTOkVwb2NoVGltZSI6MTI1NTY3NDc\
        xNn0KICAgICAgfSAKICAgfV0gCn0K&Signature=rc~5Qbbm8EJXjUTQ6Cn0LAxR72g1DOPrTmdtfbWVVgQNw0q~KHUAmBa2Zv1Wjj8dDET4XSL~Myh\
        44CLQdu4dOH~N9huH7QfPSR~O4tIOS1WWcP~2JmtVPoQyLlEc8YHRCuN3nVNZJ0m4EZcXXNAS-0x6Zco2SYx~hywTRxWR~5Q_\
        &Key-Pair-Id=PK123456789754";

    fn verifier() -> CloudFront {
        let algorithm = &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY;
        let key = Key::of_example("PK123456789754", Scheme::RsaSha1, algorithm, &testing::cloudfront());
        CloudFront::with(vec![key], Duration::ZERO)
    }

    #[test]
    fn canned_policy() {
        let verify = |url: &str, now| verifier().verify(&asked(url).presented(), now);
        let grant = Grant { id: "Nql641NHEUkUaXQH".to_owned(), expires: Some(1_258_237_200) };
        assert_eq!(verify(CANNED, 1_258_237_199), Ok(grant));
        assert_eq!(verify(CANNED, 1_258_237_200), Err(Refused::Expired(1_258_237_200)));
        for (from, to) in [
            ("http:", "https:"),
            ("d604721fxaaqy9.", "d604721fxaaqy8."),
            ("horizon.jpg", "horizon.png"),
            ("large=yes", "large=no"),
            ("large=yes&license=yes", "license=yes&large=yes"),
            ("&license=yes", ""),
            ("=1258237200", "=1258237201"),
            ("=1258237200", "=01258237200"),
            ("=Nql641", "=Nql642"),
            ("PK123456789754", "PK123456789755"),
        ] {
            assert_eq!(verify(&CANNED.replace(from, to), 0), Err(Refused::Mismatch), "{from}");
        }
    }

    #[test]
    fn custom_policy_for_a_folder_and_a_network() {
        let verify = |path: &str, client: &str, now| {
            let request = asked(&format!("http://d604721fxaaqy9.cloudfront.net{path}{CUSTOM_1}")).client(client);
            verifier().verify(&request.presented(), now)
        };
        let grant = Grant { id: "cPFtRKvUfYNYmxek".to_owned(), expires: Some(1_258_237_200) };
        assert_eq!(verify("/training/orientation.avi", "145.168.143.9", 0), Ok(grant));
        assert_eq!(verify("/training/a", "145.168.143.9", 1_258_237_200), Err(Refused::Expired(1_258_237_200)));
        assert!(matches!(verify("/training/a", "145.168.144.9", 0), Err(Refused::Elsewhere(_))));
        assert!(matches!(verify("/training/a", "2001:db8::1", 0), Err(Refused::Elsewhere(_))));
        for path in ["/other/a", "/training", "/training/../other/a", "/training/%2e%2E/a", "/training/..%2fa"] {
            assert!(matches!(verify(path, "145.168.143.9", 0), Err(Refused::Elsewhere(_))), "{path}");
        }
    }

    #[test]
    fn custom_policy_for_all_urls_from_a_time_on() {
        let verify = |url: &str, now| {
            verifier().verify(&asked(&format!("{url}{CUSTOM_2}")).client("216.98.35.1").presented(), now)
        };
        assert!(verify("http://any.example/thing", 1_241_073_790).is_ok());
        assert_eq!(verify("http://any.example/thing", 1_241_073_789), Err(Refused::NotYet(1_241_073_790)));
        assert!(matches!(verify("https://any.example/thing", 1_241_073_790), Err(Refused::Elsewhere(_))));
    }
}

/// `openssl dgst -sign` with SHA-1 and SHA-256, by a key of each kind.
const MADE: [(&str, &str, &str); 4] = [
    (
        "rsa",
        "",
        "CYa9HIn7BQWQR-77zYAwB5pDq5l3FEFHVqY2URPIqhtMRbKG1pyK2WXfayD3ifDV2pz5LC9U52oNPYbYNBaQdrLbZB7biH2Zhg4Z\
         7tcdRib4DNsTgHqDG447-3FxW1NkDZjihLEiVT0HuFrjuA81En-RqbWsRNiVWKinv9jIxEAlAQXLjA-PI3Sxe3jPazgjsyCuZAPt\
         MTK7c13m~wOryxYR0FBvSYULjIU5ij9fzKd7ID5OGgYCNIO3F5M5J6venAONDRiUhBYtrXAkT0bkxJP1rmXZmbTrqsQHsC58Rf1a\
         amnpwNZnzGjXV4oIBPrJTszAed6~5BSPzoD50kYV4Q__",
    ),
    (
        "rsa",
        "&Hash-Algorithm=SHA256",
        "hVOAuewp8gO6SxOzgvZhSgwUeEV6~udWqPUWN5Ytaj~ImfJ1fIbSLj6Vj~~QPt9Zzxi9xRrQUCpDfIevCZfQRD3TEWDY0VrrMHbQ\
         AxUllGLiM1~xJAUz1u6LtGmTNeoVCl-nZdXYVsQc2A3c1ApBAmLO0ui7Q16GLACGcCq2zUnyK~kBA-1Q2erIkWG77RfG6tcQKTVY\
         gS8XfyReyT2jOL7riM-a-y4we3rRWsEdwTI64xAVUuCRxNnj5W2BqKS-JLIHF69irZlk6Km4rPau5gdu-yAVYIbSvbH2zWSAOVo6\
         JO5alhCTIHgBwf4DTiYiURypXnlOXYoXUJb0ovPGTA__",
    ),
    (
        "p256",
        "&Hash-Algorithm=SHA1",
        "MEQCIGmEHZkbjJ2~6LVMw0gmy549YEADbCuXqwyvLvqroCDeAiBWEG9kYs92Hw-uSlxxTXP7CAbX-4c7Q3iC-7JjF5wrPg__",
    ),
    (
        "p256",
        "&Hash-Algorithm=SHA256",
        "MEUCIGBkle1~ERCJPDq68i8hxnLDy~E-3VGlTm-3ZPTvYNqOAiEA~tzL5HfZYultTz-KzhrD7ou-GkA6jrIeAJj1AztXLio_",
    ),
];
const URL: &str = "https://media.example.com/image.jpg";

#[test]
fn rsa_and_ecdsa_with_both_hashes() {
    let verifier = verifier(&[rsa("rsa"), p256("p256")]);
    for (key, hash, signature) in MADE {
        // The client's own parameters, wherever they stand.
        for query in [
            format!("color=red&size=medium&Expires=1767290400&Signature={signature}&Key-Pair-Id={key}{hash}"),
            format!("Key-Pair-Id={key}&color=red&Expires=1767290400{hash}&Signature={signature}&size=medium"),
            // Encoded without need, as some clients do.
            format!(
                "color=red&size=medium&Expires=1767290400&Signature={}&Key%2DPair-Id={key}{hash}",
                signature.replace('~', "%7E").replace('_', "%5f")
            ),
        ] {
            let request = asked(URL).query(&query);
            let grant = verifier.verify(&request.presented(), 1_767_290_399);
            assert_eq!(grant, Ok(Grant { id: signature[..16].to_owned(), expires: Some(1_767_290_400) }), "{query}");
            // With the other hash it is another's.
            let other = match hash {
                "&Hash-Algorithm=SHA256" => query.replace(hash, ""),
                _ => format!("{}&Hash-Algorithm=SHA256", query.replace(hash, "")),
            };
            assert_eq!(verifier.verify(&asked(URL).query(&other).presented(), 0), Err(Refused::Mismatch), "{other}");
        }
    }
}

#[test]
fn cookies_count_where_the_url_is_not_signed() {
    let verifier = verifier(&[rsa("rsa"), p256("p256")]);
    for (key, hash, signature) in MADE {
        let hash = hash.replace("&Hash", "; CloudFront-Hash");
        let cookies = format!("a=b; CloudFront-Expires=1767290400; CloudFront-Signature={signature}");
        let request = asked(URL)
            .query("color=red&size=medium")
            .header("cookie", &cookies)
            .header("cookie", &format!("CloudFront-Key-Pair-Id={key}{hash}"));
        assert!(verifier.verify(&request.presented(), 0).is_ok(), "{key} {hash}");
        let signed = request.query("color=red&size=medium&Expires=1767290400&Signature=AAAA&Key-Pair-Id=rsa");
        assert_eq!(verifier.verify(&signed.presented(), 0), Err(Refused::Mismatch));
    }
}

#[test]
fn what_is_no_token_says_so() {
    let verifier = verifier(&[rsa("rsa")]);
    let verify = |query: &str| verifier.verify(&asked(URL).query(query).presented(), 0);
    for query in ["", "a=b", "Signature=&Key-Pair-Id=", "Expires=9", "Policy=e30_", "signature=x&key-pair-id=y"] {
        assert_eq!(verify(query), Err(Refused::Missing), "{query}");
    }
    let long = "A".repeat(LONGEST);
    for query in [
        "Signature=AAAA",
        "Key-Pair-Id=rsa",
        "Signature=AAAA&Key-Pair-Id=rsa",
        "Signature=AAAA&Key-Pair-Id=rsa&Expires=",
        "Signature=AAAA&Key-Pair-Id=rsa&Expires=1e9",
        "Signature=AAAA&Key-Pair-Id=rsa&Expires=-1",
        "Signature=AAAA&Key-Pair-Id=rsa&Expires=99999999999999999999",
        "Signature=AAAA&Key-Pair-Id=rsa&Expires=9&Hash-Algorithm=MD5",
        "Signature=AA+A&Key-Pair-Id=rsa&Expires=9",
        "Signature=AAAA____&Key-Pair-Id=rsa&Expires=9",
        "Signature=AAA__&Key-Pair-Id=rsa&Expires=9",
        "Signature=AAAA&Key-Pair-Id=rsa&Policy=%ff",
        "Signature=AAAA&Key-Pair-Id=rsa&Policy=A",
        &format!("Signature=AAAA&Key-Pair-Id=rsa&Policy={long}"),
        &format!("Signature={long}&Key-Pair-Id=rsa&Expires=9"),
    ] {
        assert!(matches!(verify(query), Err(Refused::Malformed(_))), "{query}");
    }
    // A URL that would write more into the policy than itself.
    let request = asked(r#"https://a.test/x","Condition":{"#).query("Signature=AAAA&Key-Pair-Id=rsa&Expires=9");
    assert!(matches!(verifier.verify(&request.presented(), 0), Err(Refused::Malformed(_))));
}

#[test]
fn keys_that_cloudfront_has_not_are_refused_at_once() {
    for key in
        [p384("a"), testing::key("a", PublicKeyKind::Rsa, "AAAA"), testing::key("a", PublicKeyKind::P256, "BAAA")]
    {
        assert!(CloudFront::new(&[key], Duration::ZERO).is_err());
    }
}

/// A signer, for policies that are made up here.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        Signer(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key"))
    }

    fn verifier(&self, skew: u64) -> CloudFront {
        let text = STANDARD.encode(self.0.public_key().as_ref());
        let key = testing::key("K", PublicKeyKind::P256, &text);
        CloudFront::new(&[p256("other"), key], Duration::from_secs(skew)).expect("keys that can be used")
    }

    fn query(&self, policy: &str) -> String {
        let signature = self.0.sign(&SystemRandom::new(), policy.as_bytes()).expect("a signature");
        let encode = |bytes: &[u8]| STANDARD.encode(bytes).replace('+', "-").replace('=', "_").replace('/', "~");
        let (policy, signature) = (encode(policy.as_bytes()), encode(signature.as_ref()));
        format!("Policy={policy}&Signature={signature}&Key-Pair-Id=K&Hash-Algorithm=SHA256")
    }
}

fn policy(resource: &str, from: u64, until: u64) -> String {
    format!(
        r#"{{"Statement":[{{"Resource":"{resource}","Condition":{{"DateLessThan":{{"AWS:EpochTime":{until}}},"DateGreaterThan":{{"AWS:EpochTime":{from}}}}}}}]}}"#
    )
}

#[test]
fn a_policy_is_for_the_url_as_asked_with_its_own_query() {
    let signer = Signer::new();
    let verifier = signer.verifier(0);
    for (resource, url, holds) in [
        ("https://a.test/v/*", "https://a.test/v/1.ts?x=1", true),
        ("https://a.test/v/*", "http://a.test/v/1.ts", false),
        ("http*://a.test/v/*", "http://a.test/v/1.ts", true),
        ("https://*.test:8443/?.ts", "https://a.test:8443/1.ts", true),
        ("https://a.test/1.ts?x=1", "https://a.test/1.ts?x=1", true),
        ("https://a.test/1.ts", "https://a.test/1.ts?x=1", false),
        ("https://a.test/1.ts", "https://a.test/1.ts", true),
        ("*", "https://a.test/1.ts", true),
    ] {
        let token = signer.query(&policy(resource, 0, 9));
        let mark = if url.contains('?') { '&' } else { '?' };
        let verified = verifier.verify(&asked(&format!("{url}{mark}{token}")).presented(), 1);
        assert_eq!(verified.is_ok(), holds, "{resource} {url} {verified:?}");
    }
    // Signed, but no policy.
    for text in ["{}", "", r#"{"Statement":[{"Condition":{"DateLessThan":{"AWS:EpochTime":9},"Bool":{}}}]}"#] {
        let request = asked(&format!("https://a.test/?{}", signer.query(text)));
        assert!(verifier.verify(&request.presented(), 1).is_err(), "{text}");
    }
}

#[test]
fn a_clock_may_be_off_by_the_skew() {
    let signer = Signer::new();
    let url = format!("https://a.test/?{}", signer.query(&policy("*", 100, 200)));
    for (skew, now, holds) in [
        (0, 99, false),
        (0, 100, true),
        (0, 199, true),
        (0, 200, false),
        (5, 94, false),
        (5, 95, true),
        (5, 204, true),
        (5, 205, false),
    ] {
        assert_eq!(signer.verifier(skew).verify(&asked(&url).presented(), now).is_ok(), holds, "{skew} {now}");
    }
    let always = format!("https://a.test/?{}", signer.query(&policy("*", 0, u64::MAX)));
    assert!(signer.verifier(5).verify(&asked(&always).presented(), u64::MAX - 1).is_ok());
}

/// With whatever in its parts, and in cookies.
#[test]
fn no_text_makes_it_panic_and_none_is_a_token() {
    let verifier = verifier(&[rsa("rsa"), p256("p256")]);
    let value = "[A-Za-z0-9~_%&=;.-]{0,40}";
    let strategy = ("(rsa|p256|x)", value, "([0-9]{0,21}|[A-Za-z0-9_~-]{0,60})", "(SHA1|SHA256|.{0,3})", "\\PC{0,40}");
    proptest!(fuzz_cases(), |((key, signature, terms, hash, other) in strategy)| {
        for kind in ["Expires", "Policy"] {
            let query = format!("{other}&{kind}={terms}&Signature={signature}&Key-Pair-Id={key}&Hash-Algorithm={hash}");
            let request = Request::get(&format!("/{other}")).query(&query);
            prop_assert!(verifier.verify(&request.presented(), 0).is_err());
        }
        let cookies = format!("{other}; CloudFront-Policy={terms}; CloudFront-Signature={signature}; CloudFront-Key-Pair-Id={key}");
        if let Ok(line) = cookies.parse() {
            let mut request = Request::get("/");
            request.headers.insert("cookie", line);
            prop_assert!(verifier.verify(&request.presented(), 0).is_err());
        }
    });
}

/// A byte of a whole target that is another one: what verifies has been for this URL all along.
#[test]
fn nothing_that_has_been_changed_verifies() {
    let signer = Signer::new();
    let verifier = signer.verifier(0);
    let folder = format!("/v/1.ts?a=1&{}", signer.query(&policy("https://cdn.example/v/1.ts?a=1", 0, 9)));
    let canned = canned("https://cdn.example/v/1.ts?a=1", "9").expect("a URL");
    let canned = format!("/v/1.ts?a=1&Expires=9&{}", signer.query(&canned).split_once('&').expect("a policy").1);
    for target in [&folder, &canned] {
        assert!(verifier.verify(&Request::target(target, None).presented(), 1).is_ok());
    }
    proptest!(fuzz_cases(), |(which in 0..2usize, at in any::<prop::sample::Index>(), to in 0x21..0x7fu8)| {
        let original = [&folder, &canned][which];
        let mut bytes = original.clone().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to && to != b'?' && to != b'#');
        bytes[at] = to;
        let target = String::from_utf8(bytes).expect("ASCII");
        prop_assume!(target.starts_with('/'));
        prop_assert!(verifier.verify(&Request::target(&target, None).presented(), 1).is_err(), "{}", target);
    });
}

/// What a policy says is read after its signature has been verified, but a signer may be wrong too.
#[test]
fn no_policy_makes_it_panic() {
    let sound = policy("https://cdn.example/v/*", 3, 9);
    proptest!(fuzz_cases(), |(text in prop_oneof![
        "\\PC{0,60}",
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(move |(at, to)| {
            let mut bytes = sound.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = to;
            String::from_utf8_lossy(&bytes).into_owned()
        }),
    ])| {
        let request = Request::get("/v/1.ts");
        if let Ok(policy) = Policy::read(text.as_bytes()) {
            let _ = policy.check(&request.presented(), "https://cdn.example/v/1.ts", 5, 0);
        }
    });
}
