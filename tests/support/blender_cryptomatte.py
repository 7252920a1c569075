"""Run inside Blender: -- PICTURE.exr OUT.exr WIDTH HEIGHT NAME writes the matte that its Cryptomatte node picks by a name."""

import sys

import bpy

picture, out, width, height, name = sys.argv[sys.argv.index("--") + 1 :]
scene = bpy.context.scene
for item in list(scene.objects):
    if item.type != "CAMERA":
        bpy.data.objects.remove(item)
scene.use_nodes = True
tree = scene.node_tree
tree.nodes.clear()
picker = tree.nodes.new("CompositorNodeCryptomatteV2")
picker.source = "IMAGE"
picker.image = bpy.data.images.load(picture)
picker.layer_name = "CryptoObject"  # has Blender read the names in the picture
picker.matte_id = name
composite = tree.nodes.new("CompositorNodeComposite")
tree.links.new(picker.outputs["Matte"], composite.inputs["Image"])
render = scene.render
render.engine, scene.cycles.samples = "CYCLES", 1
render.resolution_x, render.resolution_y, render.resolution_percentage = int(width), int(height), 100
render.image_settings.file_format, render.image_settings.color_depth = "OPEN_EXR", "32"
render.filepath = out
bpy.ops.render.render(write_still=True)
