"""The published files of MD17, rMD17 and the coupled-cluster sets: PyG's names, layout and download."""

import os
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

from torch_geometric import datasets as pyg_datasets

# Where a published file may lie below root, besides where PyG's own MD17 has it.
FOLDERS = (".", "npz_data", "rmd17/npz_data")


class PublishedFiles(pyg_datasets.MD17):
    """PyG's names, layout and download of the published files, without its processing."""

    def _download(self):
        try:
            super()._download()
        except OSError as error:  # no network, no such address, a folder that may not be written
            with suppress(OSError):
                os.rmdir(self.raw_dir)  # made for the download
            raise FileNotFoundError(
                f"{self.root}: no {self.file_names[self.name]} in it, nor in {' or '.join(FOLDERS[1:])}, and PyG's "
                f"download failed ({error}); give the folder of the published files as `root`"
            ) from error
        except (EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{self.raw_dir}: what was downloaded is broken ({error}); remove it and try again"
            ) from error

    def _process(self):
        pass

    def load(self, path):
        pass


def find(root: Path, name: str, file_names: list[str], **arguments) -> list[Path]:
    """The npz files of what PyG calls ``name``, downloaded if they are not together in one of the folders.

    Args:
        root: the folder to look in and to download to.
        name: PyG's.
        file_names: of the npz files.
        arguments: further ones of :class:`torch_geometric.datasets.MD17`.
    """
    for folder in FOLDERS:
        paths = [root / folder / file_name for file_name in file_names]
        if all(path.is_file() for path in paths):
            return paths
    return [Path(path) for path in PublishedFiles(str(root), name, **arguments).raw_paths]
