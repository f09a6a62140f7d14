# Renders the Open OnDemand app as its dashboard does, for several sample forms:
#
#   ruby tests/ondemand/render.rb APP OUT FOLDER PROGRAM
#
# OUT/NAME/ then holds form.yml, submit.yml, info.md, completed.md, script.sh and the other scripts. FOLDER is a folder with an
# awkward name, PROGRAM what is to be started. Fails on a template that does not render or YAML that is not what it should be.

require 'erb'
require 'fileutils'
require 'pathname'
require 'yaml'

app, out, folder, program = ARGV.map { |argument| Pathname.new(argument).expand_path }
abort 'usage: render.rb APP OUT FOLDER PROGRAM' unless program

# What a template sees: the form's fields by name.
class Form
  def initialize(fields)
    @fields = fields.transform_keys(&:to_sym)
  end

  def method_missing(name, *arguments)
    @fields.key?(name) && arguments.empty? ? @fields[name] : super
  end

  def respond_to_missing?(name, _all = false)
    @fields.key?(name) || super
  end

  def context
    self
  end

  def render(template)
    ERB.new(template.read, trim_mode: '-').tap { |erb| erb.filename = template.to_s }.result(binding)
  end
end

def check(what, good)
  abort "#{what} is not as it should be" unless good
end

usual = {
  harvest_program: program.to_s, harvest_modules: '', project_folder: folder.to_s, more_folders: '0', image_folders: '',
  bc_num_hours: '4', cores: '2', memory: '4', gpus: '0', bc_queue: '', bc_account: '', bc_email_on_started: '0',
  # What the dashboard knows of a session.
  id: '3f0c', cluster_id: 'my_cluster', job_id: '17', created_at: 1_790_000_000,
  host: 'n17', port: '8080', password: 'x' * 48
}
samples = {
  'plain' => {},
  'gpu' => { gpus: '2', harvest_modules: 'cuda/12.4 nccl/2.21', cores: '16', memory: '64', bc_queue: 'gpu' },
  'folders' => { more_folders: '1', image_folders: "/tmp\n\n  /usr/share  \n" },
  'hostile' => { project_folder: "/tmp/it's $(touch pwned) `touch pwned` \"here\"; touch pwned", more_folders: '1',
                 image_folders: "/tmp/$(touch pwned)\n'; touch pwned; '" },
  'empty' => { cores: '', memory: '', gpus: nil, image_folders: nil, more_folders: nil }
}

manifest = YAML.safe_load(app.join('manifest.yml').read)
check 'manifest.yml', manifest['role'] == 'batch_connect' && %w[name category description].all? { |key| manifest[key] }

samples.each do |name, fields|
  form = Form.new(usual.merge(fields))
  to = out.join(name)
  FileUtils.mkdir_p(to)
  Dir[app.join('*.erb'), app.join('template/*.erb')].map { |path| Pathname.new(path) }.each do |template|
    target = to.join(template.basename('.erb'))
    target.write(form.render(template))
    target.chmod(template.stat.mode)
  end

  shape = YAML.safe_load(to.join('form.yml').read)
  check "#{name}: cluster", shape['cluster'].is_a?(Array) && shape['cluster'].all?(String)
  known = shape['attributes'].keys
  check "#{name}: every attribute is in the form", known.sort == shape['form'].sort
  widgets = shape['attributes'].values.grep(Hash).filter_map { |attribute| attribute['widget'] }
  check "#{name}: widgets", (widgets - %w[path_selector check_box text_area number_field]).empty?
  shape['attributes'].each_value do |attribute|
    next unless attribute.is_a?(Hash) && attribute.key?('max')

    check "#{name}: a default within its bounds", attribute['value'].between?(attribute['min'], attribute['max'])
  end

  submit = YAML.safe_load(to.join('submit.yml').read)
  native = submit.dig('script', 'native')
  check "#{name}: submit.yml", submit.dig('batch_connect', 'template') == 'basic' && native.all?(/\A--[a-z-]+=\w+\z/)
  check "#{name}: GPUs", native.any?(/gpus/) == form.gpus.to_i.positive?
  check "#{name}: no core or memory of zero", native.none?(/=0/)
end
puts "rendered #{samples.length} forms"
