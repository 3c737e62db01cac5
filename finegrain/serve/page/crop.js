// Lets the user choose a part of a picture.

/**
 * Show a picture and wait until a part, or all of it, is chosen.
 *
 * @param {File} file The picture.
 * @returns {Promise<Blob|null>} The part as JPEG; the file itself for all of it; null if cancelled.
 */
export function choosePart(file) {
  const dialog = document.getElementById("crop");
  const canvas = document.getElementById("crop-canvas");
  const context = canvas.getContext("2d");
  const image = new Image();
  const address = URL.createObjectURL(file);
  let part = null; // x, y, width, height in pixels of the canvas
  let start = null;

  const draw = () => {
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    if (!part) return;
    context.fillStyle = "rgb(0 0 0 / .55)";
    context.fillRect(0, 0, canvas.width, canvas.height);
    const scale = image.naturalWidth / canvas.width;
    context.drawImage(image, ...part.map((value) => value * scale), ...part);
    context.strokeStyle = "#fff";
    context.lineWidth = 2;
    context.strokeRect(...part);
  };

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const inside = (value, most) => Math.min(Math.max(value, 0), most);
    return [
      inside(((event.clientX - box.left) * canvas.width) / box.width, canvas.width),
      inside(((event.clientY - box.top) * canvas.height) / box.height, canvas.height),
    ];
  };

  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    start = place(event);
  };
  canvas.onpointermove = (event) => {
    if (!start) return;
    const [x, y] = place(event);
    const size = [Math.abs(x - start[0]), Math.abs(y - start[1])];
    part = Math.min(...size) < 8 ? null : [Math.min(x, start[0]), Math.min(y, start[1]), ...size];
    draw();
  };
  canvas.onpointerup = () => {
    start = null;
  };

  return new Promise((resolve, reject) => {
    image.onerror = () => {
      URL.revokeObjectURL(address);
      resolve(file); // the service says what is wrong with it
    };
    image.onload = () => {
      const scale = Math.min(1, 640 / image.naturalWidth, 480 / image.naturalHeight);
      canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
      canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
      draw();
      dialog.returnValue = "";
      dialog.showModal();
    };
    dialog.onclose = () => {
      URL.revokeObjectURL(address);
      if (dialog.returnValue !== "search") resolve(null);
      else if (!part) resolve(file);
      else cut(image, part, canvas.width).then(resolve, reject);
    };
    image.src = address;
  });
}

function cut(image, part, width) {
  const [x, y, w, h] = part.map((value) => Math.round((value * image.naturalWidth) / width));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.max(w, 1), Math.max(h, 1)];
  canvas.getContext("2d").drawImage(image, x, y, w, h, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
}
