//! The process: from the configuration to listening, through signals, to the last response.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use log::{error, info, warn};
use pingora::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, http_proxy};
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::control::EdgeControl;
use super::drain::{Drained, drain};
use super::listener::{self, Bound};
use super::proxy::Edge;
use super::state::{Life, Shared};
use super::{notify, reload, sample, secret, upgrade};
use crate::admin;
use crate::config::model::{Admin, AdminAddress, Config};
use crate::observe::AccessLog;
use crate::store::{Begin, Disks};

/// An idle client connection of a draining process ends after this: sooner, and a client that is about to send its
/// next request on it would lose it.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// How often a draining process looks for idle connections.
const DRAIN_TICK: Duration = Duration::from_millis(100);

/// How long the last lines of the access log may take.
const LOG_GRACE: Duration = Duration::from_secs(5);

/// The name under which the secret of session tickets is handed over.
const TICKET_SECRET: &str = "ticket secret";

/// What to run.
pub struct Launch {
    pub config: Config,
    /// Take the listening sockets of the running process over.
    pub upgrade: bool,
    /// Called once the traffic is served.
    pub ready: Box<dyn FnOnce() + Send>,
}

/// Runs the edge until a signal ends it. The exit code is 1 if it could not start, else 0.
pub fn run(launch: Launch) -> ExitCode {
    raise_file_limit();
    // Installed by whoever comes first; ours before Pingora's.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // One worker needs no scheduler that could move work to another.
    let mut builder = match launch.config.threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(launch.config.threads).thread_name("edge").enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return failed(&format!("starting the worker threads: {e}")),
    };
    match runtime.block_on(serve(launch)) {
        Ok(()) => {
            // What still runs is what the drain did not wait for.
            runtime.shutdown_background();
            ExitCode::SUCCESS
        }
        Err(why) => failed(&why),
    }
}

fn failed(why: &str) -> ExitCode {
    error!("{why}");
    eprintln!("foreland: {why}");
    ExitCode::FAILURE
}

async fn serve(launch: Launch) -> Result<(), String> {
    let Launch { config, upgrade, ready } = launch;
    config.warnings.iter().for_each(|warning| warn!("{warning}"));
    let mut signals = Signals::new().map_err(|e| format!("listening for signals: {e}"))?;
    let mut handover = match (upgrade, &config.upgrade_socket) {
        (false, _) => None,
        (true, Some(path)) => {
            info!("waiting on {} for the running process to hand its sockets over", path.display());
            let taken = tokio::select! {
                taken = upgrade::take(path) => taken,
                () = signals.stop() => return Err("stopped while waiting for the running process".to_owned()),
            };
            Some(taken.map_err(|e| format!("upgrade by {}: {e}", path.display()))?)
        }
        (true, None) => return Err("--upgrade needs upgrade_socket in the configuration".to_owned()),
    };
    let mut inherited = handover.as_mut().map(|h| std::mem::take(&mut h.sockets)).unwrap_or_default();
    let mut sockets = Vec::new();
    for listener in &config.listeners {
        let name = listener.address.to_string();
        let bound = match take(&mut inherited, &name) {
            Some(socket) => Bound::adopt(listener, socket),
            None => Bound::new(listener),
        };
        sockets.push((name, bound.map_err(|e| format!("listening on {}: {e}", listener.address))?));
    }
    let admin = match &config.admin {
        Some(admin) => {
            let name = admin_name(admin);
            let (bound, socket) = bind_admin(admin, take(&mut inherited, &name))?;
            Some((name, bound, socket))
        }
        None => None,
    };
    let ticket_secret = take(&mut inherited, TICKET_SECRET).and_then(|file| secret::read(&file));
    drop(inherited);
    let access_log = match &config.access_log {
        Some(settings) => Some(AccessLog::start(settings).map_err(|e| format!("access log: {e}"))?),
        None => None,
    };
    let (pid_file, upgrade_socket) = (config.pid_file.clone(), config.upgrade_socket.clone());

    let (disks, begin) = (config.disks.clone(), if upgrade { Begin::Upgrade } else { Begin::Alone });
    let disks = tokio::task::spawn_blocking(move || Disks::open(&disks, begin)).await;
    let disks = disks.map_err(|e| format!("opening the disks: {e}"))?.map_err(|e| format!("cache.disk: {e}"))?;
    let shared = Shared::new(config, access_log, disks, ticket_secret)?;
    let met = match (upgrade, &upgrade_socket) {
        (true, Some(path)) => join_ledger(&shared, meeting_folder(path)).await,
        _ => None,
    };
    shared.snapshot().pools.ready().await;
    shared.store.keep_tidy().map_err(|e| format!("starting a thread: {e}"))?;
    sample::register(&shared);
    let app = Arc::new(proxy(&shared));
    let (stop, stopped) = watch::channel(false);
    let (drain, mut drained) = drain();
    tokio::spawn(shared.watch.clone().run());
    tokio::spawn(shared.overload.clone().run());
    // What may fail comes before the first accept: a connection that is accepted is answered.
    let shares: Vec<_> = sockets
        .iter()
        .map(|(name, bound)| Ok((name.clone(), bound.share().map_err(|e| format!("listening on {name}: {e}"))?)))
        .collect::<Result<_, String>>()?;
    let (admin_stop, mut admin_stopped) = watch::channel(false);
    let admin_serving = match admin {
        Some((name, bound, socket)) => {
            let stopped = async move {
                let _ = admin_stopped.wait_for(|stop| *stop).await;
            };
            let serving = bound.serve(Arc::new(EdgeControl::new(shared.clone())), stopped);
            Some((serving.map_err(|e| format!("admin listener: {e}"))?, name, socket))
        }
        None => None,
    };
    if let Some(path) = &pid_file {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|e| format!("writing {}: {e}", path.display()))?;
    }
    for (name, bound) in shares {
        let serving = listener::serve(bound, app.clone(), shared.clone(), drain.clone(), stopped.clone());
        tokio::spawn(async move {
            if let Err(e) = serving.await {
                error!("serving {name}: {e}");
            }
        });
    }
    drop(drain);
    shared.enter(Life::Serving);
    notify::ready();
    if let Some(mut handover) = handover {
        if let Err(e) = handover.ready().await {
            warn!("telling the old process that this one serves: {e}");
        }
        if let Some(folder) = met {
            let store = shared.store;
            tokio::spawn(async move {
                handover.gone().await;
                let _ = tokio::task::spawn_blocking(move || store.part(&folder)).await;
            });
        }
    }
    if let Some((serving, ..)) = &admin_serving {
        serving.own_name(true);
    }
    for (name, _) in &sockets {
        info!("listening on {name}");
    }
    ready();

    let mut to_give: Vec<(String, BorrowedFd<'_>)> = sockets.iter().map(|(n, b)| (n.clone(), b.as_fd())).collect();
    if let Some((_, name, socket)) = &admin_serving {
        to_give.push((name.clone(), socket.as_fd()));
    }
    let secret = secret::sealed(&shared.ticket_secret).map_err(|e| warn!("sessions will not survive an upgrade: {e}"));
    if let Ok(secret) = &secret {
        to_give.push((TICKET_SECRET.to_owned(), secret.as_fd()));
    }
    let end = until_stopped(&mut signals, &shared, upgrade_socket.as_deref(), &to_give).await;

    shared.enter(Life::Draining);
    drop(to_give);
    drop(sockets);
    let admin_serving = admin_serving.map(|(serving, ..)| serving);
    let _ = stop.send(true);
    let mut until_the_end = None;
    match end {
        // The new process answers on the same socket, and stores on the same disks; what this one would say of itself is of no use any more.
        End::HandedOver(stream) => {
            until_the_end = Some(stream);
            if let Some(serving) = &admin_serving {
                serving.own_name(false);
            }
            let _ = admin_stop.send(true);
            let store = shared.store;
            let _ = tokio::task::spawn_blocking(move || store.hand_over()).await;
        }
        // Probes see that it drains, to the end.
        End::Stopped => notify::stopping(),
    }
    drain_connections(&shared, &mut drained, shared.snapshot().config.drain, &mut signals).await;
    let _ = admin_stop.send(true);
    if let Some(serving) = admin_serving {
        let _ = tokio::task::spawn_blocking(move || serving.join()).await;
    }
    let store = shared.store;
    let _ = tokio::task::spawn_blocking(move || store.shut()).await;
    if let Some(log) = shared.access_log.load_full() {
        let _ = tokio::task::spawn_blocking(move || log.shutdown(LOG_GRACE)).await;
    }
    if let Some(path) = &pid_file {
        remove_own_pid_file(path);
    }
    drop(until_the_end);
    info!("bye");
    Ok(())
}

/// Where two processes that have no disk keep one ledger for the time of an upgrade.
fn meeting_folder(upgrade_socket: &Path) -> PathBuf {
    let mut name = upgrade_socket.as_os_str().to_owned();
    name.push(".ledger");
    name.into()
}

/// Takes part in the ledger of the process before, where that is on no disk; the folder that it is in.
async fn join_ledger(shared: &Shared, folder: PathBuf) -> Option<PathBuf> {
    let (store, place) = (shared.store, folder.clone());
    match tokio::task::spawn_blocking(move || store.join(&place)).await {
        Ok(Ok(joined)) => joined.then_some(folder),
        Ok(Err(e)) => {
            warn!("what one process purges is not known to the other: {e}");
            None
        }
        Err(_) => None,
    }
}

/// Why the service ends.
enum End {
    Stopped,
    /// It lasts as long as this process.
    HandedOver(UnixStream),
}

/// Serves signals until one of them ends the service.
async fn until_stopped(
    signals: &mut Signals,
    shared: &Arc<Shared>,
    upgrade_socket: Option<&Path>,
    sockets: &[(String, BorrowedFd<'_>)],
) -> End {
    // Waiting for the new process keeps no other signal waiting.
    let mut giving = None;
    loop {
        let what = tokio::select! {
            what = signals.next() => what,
            Some(given) = async { Some(giving.as_mut()?.await) } => {
                let given: Result<UnixStream, (String, bool)> = given;
                match given {
                    Ok(stream) => {
                        info!("the new process serves; finishing what is in flight");
                        return End::HandedOver(stream);
                    }
                    Err((e, is_taken)) => {
                        error!("{e}; this process goes on");
                        if !is_taken && let Some(path) = upgrade_socket {
                            let (store, folder) = (shared.store, meeting_folder(path));
                            let _ = tokio::task::spawn_blocking(move || store.part(&folder)).await;
                        }
                    }
                }
                giving = None;
                continue;
            }
        };
        match what {
            What::Reload => {
                let shared = shared.clone();
                let _ = tokio::task::spawn_blocking(move || reload::reload(&shared).is_ok()).await;
            }
            What::Reopen => reopen_logs(shared),
            What::Upgrade => match upgrade_socket {
                None => error!("QUIT: no upgrade_socket in the configuration, so there is nowhere to hand over to"),
                Some(_) if giving.is_some() => info!("QUIT: waiting for the new process already"),
                Some(path) => {
                    info!("handing {} sockets over by {}", sockets.len(), path.display());
                    // From its first moment on, the new process has its part in the ledger.
                    let (store, folder) = (shared.store, meeting_folder(path));
                    let met = tokio::task::spawn_blocking(move || store.meet(&folder)).await;
                    if let Ok(Err(e)) = met {
                        warn!("what one process purges is not known to the other: {e}");
                    }
                    giving = Some(Box::pin(async move {
                        upgrade::give(path, sockets)
                            .await
                            .map_err(|e| (format!("upgrade by {}: {}", path.display(), e.error), e.is_taken))
                    }));
                }
            },
            What::Stop => {
                info!("stopping");
                return End::Stopped;
            }
        }
    }
}

fn reopen_logs(shared: &Shared) {
    if let Some(log) = &*shared.access_log.load() {
        log.reopen();
    }
    info!("logs reopened");
}

/// Waits for the requests in flight, at most `limit`, or until a second signal to stop.
async fn drain_connections(shared: &Shared, drained: &mut Drained, limit: Duration, signals: &mut Signals) {
    let mut tick = tokio::time::interval(DRAIN_TICK);
    let end = tokio::time::sleep(limit);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = drained.wait() => return,
            () = &mut end => {
                warn!("{} client connections are still open after {limit:?}; ending them", shared.watch.open());
                return;
            }
            what = signals.next() => match what {
                What::Stop => {
                    warn!("asked again to stop: ending {} client connections", shared.watch.open());
                    return;
                }
                // Rotation goes on: what is in flight may last as long as `drain`.
                What::Reopen => reopen_logs(shared),
                What::Reload | What::Upgrade => info!("HUP and QUIT have no effect any more: stopping already"),
            },
            _ = tick.tick() => shared.watch.end_idle(IDLE_GRACE.min(limit)),
        }
    }
}

fn proxy(shared: &Arc<Shared>) -> HttpProxy<Edge> {
    let config = &shared.snapshot().config;
    // Its pool of connections and its retries have nothing to do: an exchange has its own.
    let conf = ServerConf { threads: config.threads, ..ServerConf::default() };
    http_proxy(&Arc::new(conf), Edge { shared: shared.clone() })
}

/// The name under which the admin listener is handed over: with its address, since the new file may have another.
fn admin_name(settings: &Admin) -> String {
    match &settings.address {
        AdminAddress::Tcp(address) => format!("admin {address}"),
        AdminAddress::Unix(path) => format!("admin {}", path.display()),
    }
}

fn bind_admin(settings: &Admin, inherited: Option<OwnedFd>) -> Result<(admin::Bound, OwnedFd), String> {
    let failed = |e: io::Error| format!("admin listener: {e}");
    let bound = match inherited {
        Some(socket) => admin::Bound::adopt(settings, socket),
        None => admin::bind(settings).map_err(failed)?,
    };
    let socket = bound.as_fd().try_clone_to_owned().map_err(failed)?;
    Ok((bound, socket))
}

fn take(sockets: &mut Vec<(String, OwnedFd)>, name: &str) -> Option<OwnedFd> {
    let at = sockets.iter().position(|(n, _)| n == name)?;
    Some(sockets.swap_remove(at).1)
}

/// As many files as the kernel lets this process have: each connection is one.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        warn!("raising the limit of open files: {e}");
    }
}

/// Unless another process has taken the file over.
fn remove_own_pid_file(path: &PathBuf) {
    let own = std::fs::read_to_string(path).is_ok_and(|text| text.trim() == std::process::id().to_string());
    if own && let Err(e) = std::fs::remove_file(path) {
        warn!("removing {}: {e}", path.display());
    }
}

/// What the signals ask for.
enum What {
    Reload,
    Reopen,
    Upgrade,
    Stop,
}

struct Signals {
    hup: Signal,
    usr1: Signal,
    quit: Signal,
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            quit: signal(SignalKind::quit())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> What {
        tokio::select! {
            _ = self.hup.recv() => What::Reload,
            _ = self.usr1.recv() => What::Reopen,
            _ = self.quit.recv() => What::Upgrade,
            _ = self.term.recv() => What::Stop,
            _ = self.int.recv() => What::Stop,
        }
    }

    /// Waits for a signal to stop; the others stay where they are.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
