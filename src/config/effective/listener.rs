//! Listeners, the admin API, and what bounds clients.

use super::{Fields, Yaml, duration, list, path, size, text};
use crate::config::model::{
    Admin, AdminAddress, AdminClient, AdminToken, ClientAuth, Http2Limits, Identity, Limits, Listener, Overload, Tls,
    TlsVersion, UnknownSni,
};
use crate::config::units::show_size;

pub(super) fn listener(listener: &Listener) -> Yaml {
    let mut map = Fields::default();
    map.add("address", text(listener.address));
    map.plain("h2c", listener.h2c);
    if !listener.proxy_protocol.is_empty() {
        map.add("proxy_protocol", list(&listener.proxy_protocol, text));
    }
    map.option("tls", listener.tls.as_ref().map(tls));
    map.done()
}

fn tls(tls: &Tls) -> Yaml {
    let mut map = Fields::default();
    map.add("certificates", list(&tls.certificates, identity));
    map.add("min_version", text(if tls.min_version == TlsVersion::Tls12 { "1.2" } else { "1.3" }));
    map.plain("h2", tls.h2);
    map.add("unknown_sni", text(if tls.unknown_sni == UnknownSni::Default { "default" } else { "refuse" }));
    map.option("client_auth", tls.client_auth.as_ref().map(client_auth));
    map.plain("session_tickets", tls.session_tickets);
    map.add("handshake_timeout", duration(tls.handshake_timeout));
    map.done()
}

fn identity(identity: &Identity) -> Yaml {
    let mut map = Fields::default();
    map.add("certificate", path(&identity.chain.path));
    map.add("key", path(&identity.key.path));
    map.done()
}

fn client_auth(auth: &ClientAuth) -> Yaml {
    let mut map = Fields::default();
    map.add("ca", path(&auth.ca.path));
    map.add("mode", text(if auth.required { "required" } else { "optional" }));
    map.add("certificate_header", text(auth.certificate_header.as_deref().unwrap_or("off")));
    map.option("identity_header", auth.identity_header.as_ref().map(text));
    map.done()
}

pub(super) fn admin(admin: &Admin) -> Yaml {
    let mut map = Fields::default();
    let address = match &admin.address {
        AdminAddress::Tcp(address) => address.to_string(),
        AdminAddress::Unix(path) => format!("unix:{}", path.display()),
    };
    map.add("address", text(address));
    map.option("token", admin.token.as_ref().map(|secret| text(&secret.1)));
    if !admin.tokens.is_empty() {
        map.add("tokens", list(&admin.tokens, admin_token));
    }
    if let Some(tls) = &admin.tls {
        let mut fields = Fields::default();
        fields.add("certificate", path(&tls.identity.chain.path));
        fields.add("key", path(&tls.identity.key.path));
        fields.option("client_ca", tls.client_ca.as_ref().map(|ca| path(&ca.path)));
        map.add("tls", fields.done());
    }
    if !admin.clients.is_empty() {
        map.add("clients", list(&admin.clients, admin_client));
    }
    map.done()
}

fn admin_token(token: &AdminToken) -> Yaml {
    let mut map = Fields::default();
    map.add("name", text(&token.name));
    map.add("token", text(&token.secret.1));
    map.add("role", text(token.role.as_str()));
    map.done()
}

fn admin_client(client: &AdminClient) -> Yaml {
    let mut map = Fields::default();
    map.add("identity", text(&client.identity));
    map.add("role", text(client.role.as_str()));
    map.done()
}

pub(super) fn limits(limits: &Limits) -> Yaml {
    let mut map = Fields::default();
    map.plain("header_count", limits.header_count);
    map.add("header_size", size(limits.header_size as u64));
    map.add("uri_length", size(limits.uri_length as u64));
    map.add("body_size", limits.body_size.map_or_else(|| text("unlimited"), size));
    map.add("idle_timeout", duration(limits.idle_timeout));
    map.add("header_timeout", duration(limits.header_timeout));
    map.add("body_timeout", duration(limits.body_timeout));
    map.add("write_timeout", duration(limits.write_timeout));
    map.plain("connections", limits.connections);
    map.option("connections_per_address", limits.connections_per_address.map(number));
    map.option("body_min_rate", limits.body_min_rate.map(rate));
    map.option("send_min_rate", limits.send_min_rate.map(rate));
    map.add("http2", http2(&limits.http2));
    map.done()
}

fn http2(limits: &Http2Limits) -> Yaml {
    let mut map = Fields::default();
    map.plain("streams", limits.streams);
    map.plain("resets", limits.resets);
    map.plain("control_frames", limits.control_frames);
    map.done()
}

/// `None` where nothing is limited: to say what Retry-After is then is refused.
pub(super) fn overload(overload: &Overload) -> Option<Yaml> {
    let mut map = Fields::default();
    map.option("requests", overload.requests.map(number));
    map.option("delay", overload.delay.map(duration));
    map.option("memory", overload.memory.map(size));
    if map.0.is_empty() {
        return None;
    }
    map.add("retry_after", duration(overload.retry_after));
    Some(map.done())
}

fn rate(bytes: u64) -> Yaml {
    text(format!("{}/s", show_size(bytes)))
}

fn number(number: usize) -> Yaml {
    Yaml::Plain(number.to_string())
}
