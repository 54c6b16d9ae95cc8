"""The vendor's published JavaScript example with axios, with only the base URL changed."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.integration import server
from tests.integration.server import LocalApi

local_api = server.local_api  # pytest finds fixtures among the names of this module

AXIOS = "axios@1.21.1"
EXAMPLE = """\
const axios = require('axios');

const apiKey = process.env.FREDDY_API_KEY;

(async () => {
  const response = await axios.get(
    'ADDRESS/api/v1/scrape/batch/batch_xyz789/progress',
    { headers: { 'X-API-Key': apiKey } }
  );
  const data = response.data.data;
  console.log(`Progress: ${data.completed}/${data.total_urls} completed`);
  console.log(`Total items: ${data.total_items_extracted}`);
})();
"""


def test_javascript_axios(local_api: LocalApi, tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    assert npm, "the JavaScript example needs node and npm"
    assert node, "the JavaScript example needs node"
    install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(tmp_path), AXIOS]
    subprocess.run(install, check=True, capture_output=True, timeout=100)  # noqa: S603  # as written above
    (tmp_path / "example.js").write_text(EXAMPLE.replace("ADDRESS", local_api.address))
    environment = os.environ | {"FREDDY_API_KEY": "demo-token", "no_proxy": "127.0.0.1"}
    done = subprocess.run(  # noqa: S603  # the example
        [node, "example.js"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert "Progress: 7/10 completed\nTotal items: 245\n" == done.stdout
