//! Cells of the gateway itself, which the index key opens: one that is put in place of what was read, and a long text
//! in pieces.

use super::{Gateway, GatewayError, at, next_version, unchanged};
use crate::ledger::Change;
use crate::store::{Cell, Place, Store, Write};
use crate::vault::Vault;

/// How much of a long text one cell takes.
const PIECE_BYTES: usize = 48 * 1024;

impl Gateway {
    /// Adds the write of a cell in place of the one that was `read`, and that it is still so. Its length is a multiple of
    /// `room`.
    pub(super) fn put_indexed(
        &self,
        change: &mut Change,
        place: Place,
        read: Option<&Cell>,
        content: &[u8],
        room: usize,
    ) -> Result<(), GatewayError> {
        let version = next_version(read);
        let value = self.vault.seal_indexed(at(&place, version), content, room)?;
        change.checks.push(unchanged(&place, read));
        change.writes.push(Write::Put(place, Cell { version, value }));
        Ok(())
    }

    /// Adds the pieces of a text that lies under its own digest, and so is the same whoever writes it: nothing is checked.
    pub(super) fn put_pieces(
        &self,
        change: &mut Change,
        place: impl Fn(u16) -> Place,
        content: &[u8],
    ) -> Result<(), GatewayError> {
        for (number, piece) in (0..).zip(content.chunks(PIECE_BYTES)) {
            let place = place(number);
            let value = self.vault.seal_indexed(at(&place, 1), piece, 64)?;
            change.writes.push(Write::Put(place, Cell { version: 1, value }));
        }
        Ok(())
    }
}

/// The pieces put together; nothing where there are none.
pub(super) async fn pieces(
    store: &dyn Store,
    vault: &Vault,
    place: impl Fn(u16) -> Place,
) -> Result<Vec<u8>, GatewayError> {
    let mut content = Vec::new();
    for number in 0.. {
        let place = place(number);
        let Some(cell) = store.get(&place).await? else { break };
        content.extend(vault.open_indexed(at(&place, cell.version), &cell.value)?.iter());
    }
    Ok(content)
}
