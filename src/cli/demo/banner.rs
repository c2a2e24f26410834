//! What the demo says when it is up: five things to try, each a line to paste.

use std::net::SocketAddr;

/// The text, ready to print. `edge` and `admin` are `ip:port`.
pub fn banner(origins: &[SocketAddr], control: SocketAddr, edge: &str, admin: &str) -> String {
    let names: Vec<_> = origins.iter().enumerate().map(|(i, a)| format!("origin-{} at {a}", i + 1)).collect();
    format!(
        "\
Foreland is up: http://{edge} (edge), http://{admin} (admin).
Behind it: {names}. They can be killed and revived at http://{control}.

Paste these into another terminal:

1. A miss, then a hit: one of the origins answers once, the edge answers again and says so.
   curl -si http://{edge}/hello; echo; sleep 1; curl -si http://{edge}/hello

2. Round robin: what may not be cached goes to each origin in turn.
   for i in 1 2 3 4 5 6; do curl -s http://{edge}/who; done

3. Kill an origin under traffic: nobody notices.
   curl -s -X POST http://{control}/kill/2; for i in $(seq 50); do curl -s -o /dev/null -w '%{{http_code}}\\n' http://{edge}/who; done | sort | uniq -c; curl -s -X POST http://{control}/revive/2

4. What the edge counted.
   curl -s http://{admin}/metrics | grep -E '^foreland_(requests|origin)'

5. Part of a cached image, then only the news that it has not changed.
   curl -s -o /dev/null http://{edge}/image.png; curl -si -r 0-7 http://{edge}/image.png | head -1; curl -si -H 'If-None-Match: \"image\"' http://{edge}/image.png | head -1

Also there: /time /slow /error. Below: the access log. Ctrl-C ends it.
",
        names = names.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_five_commands_with_the_addresses_in_force() {
        let origins = [SocketAddr::from(([127, 0, 0, 1], 9001)), SocketAddr::from(([127, 0, 0, 1], 9003))];
        let text = banner(&origins, SocketAddr::from(([127, 0, 0, 1], 9000)), "127.0.0.1:8080", "127.0.0.1:9180");
        let commands: Vec<_> = text.lines().filter(|l| l.starts_with("   ")).collect();
        assert_eq!(commands.len(), 5, "{text}");
        assert!(commands[0].contains("http://127.0.0.1:8080/hello"));
        assert!(commands[2].contains("POST http://127.0.0.1:9000/kill/2") && commands[2].contains("'%{http_code}\\n'"));
        assert!(commands[3].contains("http://127.0.0.1:9180/metrics"));
        assert!(text.contains("origin-2 at 127.0.0.1:9003"));
    }
}
