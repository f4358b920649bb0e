//! The launcher's share in origins: it alone says what runs in one, and has the only way to it.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{Mode, OFlags, open};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::snapshot::FRAMES;
use crate::step::{Failure, Step};

use super::building::Wanted;
use super::{State, failed};

impl State {
    /// Starts the program of an origin, which is yet to be held.
    pub(super) fn make_origin(
        &mut self,
        id: u64,
        program: usize,
        number: u32,
        mut fds: Vec<OwnedFd>,
    ) {
        // Without it there is nobody to tell; with it the end of the socket tells.
        let Some(status) = fds.pop() else { return };
        if let Err(Failure(message)) = self.start_origin(id, program, number, &status) {
            failed(&status, message);
        }
    }

    fn start_origin(
        &mut self,
        id: u64,
        program: usize,
        number: u32,
        status: &OwnedFd,
    ) -> Result<(), Failure> {
        let program = self.options.origins.get(program);
        let program = program.ok_or_else(|| Failure("there is no such program".to_owned()))?;
        let spec = Box::new(program.spec(format!("origin-{}-{id}", std::process::id()), number));
        let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        let pair = socketpair(family, kind, SocketFlags::CLOEXEC, None);
        let (frames, theirs) = pair.step("socketpair")?;
        let mut fds = vec![(theirs, FRAMES)];
        for number in &program.silent {
            let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
            fds.push((null.step("open /dev/null")?, *number));
        }
        let wanted = Wanted { spec, status: status.try_clone().step("dup")?, fds };
        self.build(id, &wanted).map_err(Failure)?;
        if let Some(running) = self.running.get_mut(&id) {
            running.frames = Some(frames);
        }
        Ok(())
    }

    /// Notes that a sandbox runs what lies on the mounts of an origin, which may go before it.
    pub(super) fn keep_mounts(&mut self, id: u64, mounts: Option<Rc<OwnedFd>>) {
        if let Some(running) = self.running.get_mut(&id) {
            running._mounts = mounts;
        }
    }
}
